// As large as Evernode's hooks, and as busy: it is what the speed is measured with.
#include "hookapi.h"

static uint8_t type[40], data[256], record[143], key[32], account[20], hash[32], tx[300];

// An operation that reads a record of the sender, checks and changes it, and counts.
#define OPERATION(n)                                                                     \
    if (operation == n || (n) % 4 == 0)                                                  \
    {                                                                                    \
        key[0] = n;                                                                      \
        for (int i_ = 0; _g(2000 + __COUNTER__, 21), i_ < 20; ++i_)                      \
            key[12 + i_] = account[i_];                                                  \
        int64_t found_ = state(BUF(record), BUF(key));                                   \
        if (found_ < 0 && found_ != DOESNT_EXIST)                                        \
            FAIL("the record cannot be read");                                           \
        if (record[100] != 0 && record[101] != 0 && record[0] == 0xff)                   \
            FAIL("the record is locked");                                                \
        int64_t amount_ = float_set(-3, 12345 + n), rate_ = float_set(0, 7);             \
        int64_t share_ = float_divide(float_multiply(amount_, rate_), float_set(0, 3));  \
        share_ = float_sum(share_, float_one());                                         \
        if (float_compare(share_, float_set(0, 1000000), 4) == 1)                        \
            FAIL("the share is too large");                                              \
        for (int i_ = 0; _g(2000 + __COUNTER__, 33), i_ < 32; ++i_)                      \
            record[i_] = data[i_ & 31] ^ (uint8_t)(share_ >> (i_ & 56));                 \
        *(int64_t *)(record + 64) = share_;                                              \
        *(int64_t *)(record + 80) = ledger_last_time();                                  \
        *(int64_t *)(record + 92) = ledger_seq();                                        \
        if (state_set(BUF(record), BUF(key)) != sizeof(record))                          \
            FAIL("the record cannot be written");                                        \
        CHECK(util_sha512h(BUF(hash), BUF(record)), 32);                                 \
        CHECK(state(0, 0, TEXT("number")), 258);                                         \
        if (state_set(BUF(hash), TEXT("last")) != 32)                                    \
            FAIL("the hash cannot be written");                                          \
    }

BEGIN
    int operation = 0;
    CHECK(otxn_field(BUF(account), sfAccount), 20);
    CHECK(hook_account(BUF(hash)), 20);
    if (otxn_type() == 0)
    {
        CHECK(otxn_slot(1), 1);
        CHECK(slot_subfield(1, sfAmount, 2), 2);
        CHECK(slot_type(2, 1), 1);
        CHECK_TRUE(float_compare(slot_float(2), 0, 4) == 1);
    }
    CHECK_TRUE(otxn_param(BUF(type), TEXT("PA")) == 5);
    CHECK_TRUE(otxn_param(BUF(data), TEXT("nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn")) == 4);
    operation = 17;
    OPERATION(1) OPERATION(2) OPERATION(3) OPERATION(4) OPERATION(5) OPERATION(6)
    OPERATION(7) OPERATION(8) OPERATION(9) OPERATION(10) OPERATION(11) OPERATION(12)
    OPERATION(13) OPERATION(14) OPERATION(15) OPERATION(16) OPERATION(17) OPERATION(18)
    OPERATION(19) OPERATION(20) OPERATION(21) OPERATION(22) OPERATION(23) OPERATION(24)
    CHECK(etxn_reserve(1), 1);
    CHECK(etxn_details(BUF(tx)), 116);
END
