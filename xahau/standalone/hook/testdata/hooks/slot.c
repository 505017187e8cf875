#include "hookapi.h"

static uint8_t out[100], account[20] = ACCOUNT(SENDER);

BEGIN
    CHECK(slot(BUF(out), 1), DOESNT_EXIST);
    CHECK(otxn_slot(1), 1);
    CHECK(slot_subfield(1, sfAccount, 2), 2);
    CHECK(slot(BUF(out), 2), 20);
    CHECK_TRUE(SAME(out, account, 20) && out[20] == 0);
    CHECK(slot_subfield(1, sfSigningPubKey, 3), 3);
    CHECK(slot(BUF(out), 3), 34);
    CHECK(out[0], 33);
    CHECK(slot_subfield(1, sfSequence, 4), 4);
    CHECK(slot(BUF(out), 4), 4);
    CHECK(slot(0, 0, 4), 7);
    CHECK(slot(0, 0, 2), TOO_BIG);
    CHECK(slot(0, 1, 4), INVALID_ARGUMENT);
    CHECK(slot(PTR(out), 3, 4), TOO_SMALL);
    CHECK(slot(PTR(out), 0, 4), TOO_SMALL);
    CHECK(slot(BUF(out), 1), TOO_SMALL); // the whole transaction does not fit
    CHECK(slot(BUF(out), 300), DOESNT_EXIST);
    CHECK(slot(OUTSIDE, 4, 4), OUT_OF_BOUNDS);
    CHECK(slot(PTR(out), MINUS, 4), OUT_OF_BOUNDS);
    CHECK(slot(MEMORY - 3, 4, 4), OUT_OF_BOUNDS);
END
