// IMPORT says that the transaction is an Import, BAD that its proof is bad.
#include "hookapi.h"

static uint8_t out[2];

BEGIN
    if (hook_param(BUF(out), TEXT("BAD")) > 0)
        CHECK(xpop_slot(0, 0), INVALID_TXN);
    else if (hook_param(BUF(out), TEXT("IMPORT")) > 0)
    {
        CHECK(xpop_slot(0, 0), (1 << 16) + 2);
        CHECK(slot_type(1, 0), (10001LL << 16) + 257);
        CHECK(slot_type(2, 0), (10004LL << 16) + 257);
        CHECK(slot_subfield(1, sfSequence, 10), 10);
        CHECK(slot(0, 0, 10), 7);
        CHECK(slot_subfield(2, sfTransactionResult, 11), 11);
        CHECK(slot(0, 0, 11), 0);
        CHECK(xpop_slot(20, 21), (20 << 16) + 21);
        CHECK(xpop_slot(20, 20), INVALID_ARGUMENT);
        CHECK(xpop_slot(256, 0), INVALID_ARGUMENT);
        CHECK(xpop_slot(0, 256), INVALID_ARGUMENT);
        CHECK(xpop_slot(MINUS, 0), INVALID_ARGUMENT);
        FOR (i, 248)
            if (otxn_slot(0) < 1)
                FAIL("otxn_slot(0) >= 1");
        CHECK(xpop_slot(0, 0), NO_FREE_SLOTS);
        CHECK(xpop_slot(20, 0), (20 << 16) + 255);
        CHECK(xpop_slot(20, 0), NO_FREE_SLOTS);
        CHECK(xpop_slot(20, 21), (20 << 16) + 21);
    }
    else
        CHECK(xpop_slot(0, 0), PREREQUISITE_NOT_MET);
END
