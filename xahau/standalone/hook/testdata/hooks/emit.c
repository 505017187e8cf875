// Two transactions are emitted; in between, every rule is broken once.
#include "hookapi.h"

static uint8_t id[32], second[32];
static uint8_t tx[300] = {
    0x12, 0, 0, 0x22, 0x80, 0, 0, 0, 0x24, 0, 0, 0, 0, 0x20, 0x1a, 0, 0, 0x03, 0xe9, 0x20, 0x1b, 0, 0, 0x03, 0xed,
    0x61, 0x40, 0, 0, 0, 0, 0, 0, 1, 0x68, 0x40, 0, 0, 0, 0, 0, 0, 25, 0x73, 33,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x81, 20, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN,
    0x83, 20, SENDER, SENDER, SENDER, SENDER, SENDER, SENDER, SENDER, SENDER, SENDER, SENDER,
    SENDER, SENDER, SENDER, SENDER, SENDER, SENDER, SENDER, SENDER, SENDER, SENDER};
#define SIZE 238

// What a byte must not be, in turn.
#define WRONG(at, value)                                                  \
    do                                                                    \
    {                                                                     \
        uint8_t keep_ = tx[at];                                           \
        tx[at] = (value);                                                 \
        CHECK(emit(BUF(id), PTR(tx), SIZE), EMISSION_FAILURE);            \
        tx[at] = keep_;                                                   \
    } while (0)

BEGIN
    CHECK(emit(BUF(id), PTR(tx), SIZE), PREREQUISITE_NOT_MET);
    CHECK(etxn_reserve(2), 2);
    CHECK(emit(BUF(id), PTR(tx), 122), EMISSION_FAILURE);
    CHECK(etxn_details(PTR(tx) + 122, 116), 116);

    CHECK(emit(PTR(id), 31, PTR(tx), SIZE), TOO_SMALL);
    CHECK(emit(OUTSIDE, 32, PTR(tx), SIZE), OUT_OF_BOUNDS);
    CHECK(emit(BUF(id), OUTSIDE, SIZE), OUT_OF_BOUNDS);
    CHECK(emit(BUF(id), PTR(tx), MINUS), OUT_OF_BOUNDS);
    CHECK(emit(BUF(id), MEMORY - 100, SIZE), OUT_OF_BOUNDS);
    CHECK(emit(BUF(id), PTR(tx), 0), EMISSION_FAILURE);
    CHECK(emit(BUF(id), PTR(tx), SIZE - 1), EMISSION_FAILURE);
    CHECK(emit(BUF(id), PTR(tx), SIZE + 1), EMISSION_FAILURE);
    WRONG(2, 100);     // a pseudo-transaction
    WRONG(1, 0xff);    // no type at all
    WRONG(12, 1);      // Sequence
    WRONG(23, 0x02);   // LastLedgerSequence before the next ledger
    WRONG(24, 0xee);   // and six ahead
    WRONG(18, 0xee);   // FirstLedgerSequence after it
    WRONG(33, 0);      // preflight: an amount of 0
    WRONG(42, 24);     // Fee
    WRONG(77, 1);      // SigningPubKey
    WRONG(80, NOBODY); // Account
    WRONG(128, 2);     // EmitGeneration
    WRONG(128, 10);
    WRONG(137, 1);     // EmitBurden
    WRONG(140, tx[140] + 1); // EmitParentTxnID
    WRONG(180, tx[180] + 1); // EmitNonce
    WRONG(210, tx[210] + 1); // EmitHookHash
    WRONG(13, 0x24);   // a field twice, or worse

    CHECK(emit(BUF(id), PTR(tx), SIZE), 32);
    CHECK(etxn_nonce(PTR(tx) + 172, 32), 32);
    // Fields out of order are put into order: Destination before Account.
    FILL(tx + 80, 20, SENDER);
    FILL(tx + 102, 20, OWN);
    tx[78] = 0x83;
    tx[100] = 0x81;
    CHECK(emit(BUF(second), PTR(tx), SIZE), 32);
    CHECK_TRUE(!SAME(id, second, 32));
    CHECK(emit(BUF(second), PTR(tx), SIZE), TOO_MANY_EMITTED_TXN);
    CHECK(state_set(BUF(id), TEXT("id")), 32);
    CHECK(state_set(BUF(second), TEXT("second")), 32);
END
