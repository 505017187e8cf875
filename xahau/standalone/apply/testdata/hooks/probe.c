// probe does what the parameter DO of the transaction says, so that tests need few
// hooks:
//   R rolls back
//   S sets the state K to V, or deletes it without V
//   A asks to run again as weak
//   E emits N payments (1) of 1 drop to TO, which expire after L ledgers (5)
//   M emits the making of a token and then its offer to the transaction's account
//   X sets the state K to V and rolls back
//   B asks to run again and then emits the purchase, for 1 drop, of the token that
//     the transaction offers
// It accepts with why it runs as its code, and with the parameter SAY of the hook as
// its reason. Its cbak keeps the id of what it is called for.
#include "hookapi.h"

static uint8_t say[32], command[1], key[32], value[256], to[20], count[1], last[1], id[32];

static uint8_t pay[260] = {
    0x12, 0, 0, 0x22, 0x80, 0, 0, 0, 0x24, 0, 0, 0, 0, 0x20, 0x1a, 0, 0, 0, 0, 0x20, 0x1b, 0, 0, 0, 0,
    0x61, 0x40, 0, 0, 0, 0, 0, 0, 1, 0x68, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x73, 33,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 20,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x83, 20};

static uint8_t mint[235] = {
    0x12, 0, 45, 0x22, 0, 0, 0, 1, 0x24, 0, 0, 0, 0, 0x20, 0x1a, 0, 0, 0, 0, 0x20, 0x1b, 0, 0, 0, 0,
    0x68, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x73, 33,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x75, 4, 'e', 'v', 'e', 'r', 0x81, 20};

static uint8_t sell[294] = {
    0x12, 0, 48, 0x22, 0x80, 0, 0, 0, 0x24, 0, 0, 0, 0, 0x20, 0x1a, 0, 0, 0, 0, 0x20, 0x1b, 0, 0, 0, 0, 0x50, 0x24,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x61, 0x40, 0, 0, 0, 0, 0, 0, 1, 0x68, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x73, 33,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 20,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x83, 20};

static uint8_t buy[272] = {
    0x12, 0, 47, 0x22, 0x80, 0, 0, 0, 0x24, 0, 0, 0, 0, 0x20, 0x1a, 0, 0, 0, 0, 0x20, 0x1b, 0, 0, 0, 0, 0x50, 0x24,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x61, 0x40, 0, 0, 0, 0, 0, 0, 1, 0x68, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x73, 33,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 20};

static uint8_t seed[26] = {0, 'U'};

#define NUMBER(p, v)                     \
    do                                   \
    {                                    \
        uint32_t v_ = (v);               \
        (p)[0] = v_ >> 24;               \
        (p)[1] = v_ >> 16;               \
        (p)[2] = v_ >> 8;                \
        (p)[3] = v_;                     \
    } while (0)

// Ledgers at 15 and 21, the account at account, the details at the end, and the fee,
// of which the last four bytes are enough, at fee.
#define EMIT(tx, ledgers, fee, account, details)                            \
    do                                                                      \
    {                                                                       \
        NUMBER((tx) + 15, (uint32_t)ledger_seq() + 1);                      \
        NUMBER((tx) + 21, (uint32_t)ledger_seq() + (ledgers));              \
        CHECK(hook_account(PTR(tx) + (account), 20), 20);                   \
        CHECK(etxn_details(PTR(tx) + (details), 138), 138);                 \
        int64_t drops_ = etxn_fee_base(BUF(tx));                            \
        CHECK_TRUE(drops_ > 0);                                             \
        NUMBER((tx) + (fee) + 4, (uint32_t)drops_);                         \
        CHECK(emit(BUF(id), BUF(tx)), 32);                                  \
    } while (0)

int64_t hook(uint32_t reserved)
{
    _g(1, 1);
    int64_t saying = hook_param(BUF(say), TEXT("SAY"));
    if (saying < 0)
        saying = 0;
    if (otxn_param(BUF(command), TEXT("DO")) != 1)
        accept(PTR(say), saying, reserved);
    int64_t keys = otxn_param(BUF(key), TEXT("K"));
    int64_t values = otxn_param(BUF(value), TEXT("V"));
    if (command[0] == 'S' || command[0] == 'X')
    {
        if (values > 0)
            CHECK(state_set(PTR(value), values, PTR(key), keys), values);
        else
            CHECK(state_set(0, 0, PTR(key), keys), 0);
        if (command[0] == 'X')
            rollback(TEXT("no"), -7);
    }
    if (command[0] == 'R')
        rollback(TEXT("no"), -7);
    if ((command[0] == 'A' || command[0] == 'B') && reserved == 0)
        CHECK(hook_again(), 1);
    if (command[0] == 'E')
    {
        CHECK(otxn_param(BUF(to), TEXT("TO")), 20);
        int64_t n = 1, ledgers = 5;
        if (otxn_param(BUF(count), TEXT("N")) == 1)
            n = count[0];
        if (otxn_param(BUF(last), TEXT("L")) == 1)
            ledgers = last[0];
        CHECK(etxn_reserve(n), n);
        for (int i = 0; _g(2, 17), i < n; ++i)
        {
            for (int j = 0; _g(3, 17 * 21), j < 20; ++j)
                pay[102 + j] = to[j];
            EMIT(pay, ledgers, 35, 80, 122);
        }
    }
    if (command[0] == 'B' && reserved == 2)
    {
        CHECK(etxn_reserve(1), 1);
        CHECK(otxn_field(PTR(buy) + 27, 32, 0x50024U), 32);
        EMIT(buy, 5, 69, 114, 134);
    }
    if (command[0] == 'M')
    {
        CHECK(etxn_reserve(2), 2);
        EMIT(mint, 5, 26, 77, 97);
        CHECK(hook_account(PTR(seed) + 2, 20), 20);
        for (int j = 0; _g(4, 5), j < 4; ++j)
            seed[22 + j] = mint[71 + j];
        CHECK(util_sha512h(PTR(sell) + 27, 32, BUF(seed)), 32);
        CHECK(otxn_field(PTR(sell) + 136, 20, sfAccount), 20);
        EMIT(sell, 5, 69, 114, 156);
    }
    accept(PTR(say), saying, reserved);
    return 0;
}

int64_t cbak(uint32_t reserved)
{
    _g(1, 1);
    CHECK(otxn_id(BUF(id), 0), 32);
    if (reserved == 0)
        CHECK(state_set(BUF(id), TEXT("done")), 32);
    else
        CHECK(state_set(BUF(id), TEXT("failed")), 32);
    accept(TEXT("cbak"), reserved);
    return 0;
}
