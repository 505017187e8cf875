#include "hookapi.h"

static uint8_t out[34];

BEGIN
    CHECK(otxn_id(BUF(out), 0), 32);
    CHECK(state_set(PTR(out), 32, TEXT("id")), 32);
    CHECK(out[32], 0);
    CHECK(otxn_id(BUF(out), 1), 32);
    CHECK(otxn_id(PTR(out), 31, 0), TOO_SMALL);
    CHECK(otxn_id(PTR(out), 0, 0), TOO_SMALL);
    CHECK(otxn_id(OUTSIDE, 32, 0), OUT_OF_BOUNDS);
    CHECK(otxn_id(PTR(out), MINUS, 0), OUT_OF_BOUNDS);
END
