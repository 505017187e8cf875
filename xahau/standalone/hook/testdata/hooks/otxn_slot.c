#include "hookapi.h"

static uint8_t out[600];

BEGIN
    CHECK(otxn_slot(0), 1);
    CHECK(otxn_slot(0), 2);
    CHECK(otxn_slot(255), 255);
    CHECK(otxn_slot(256), INVALID_ARGUMENT);
    CHECK(otxn_slot(MINUS), INVALID_ARGUMENT);
    CHECK(slot_type(1, 0), (10001LL << 16) + 257);
    int64_t n = slot_size(255);
    CHECK(slot(BUF(out), 255), n);
    CHECK(out[0], 0x12);
    CHECK(sto_validate(PTR(out), n), 1);
    FOR (i, 252)
        if (otxn_slot(0) != 3 + i)
            FAIL("otxn_slot(0) == 3 + i");
    CHECK(otxn_slot(0), NO_FREE_SLOTS);
    CHECK(otxn_slot(7), 7);
    CHECK(slot_clear(9), 1);
    CHECK(otxn_slot(0), 9);
END
