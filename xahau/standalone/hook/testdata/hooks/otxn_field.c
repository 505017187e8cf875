#include "hookapi.h"

static uint8_t out[100], account[20] = ACCOUNT(SENDER), fee[] = {0x40, 0, 0, 0, 0, 0, 0, 12};

BEGIN
    // Accounts come without their length, blobs with it.
    CHECK(otxn_field(BUF(out), sfAccount), 20);
    CHECK_TRUE(SAME(out, account, 20) && out[20] == 0);
    CHECK(otxn_field(BUF(out), sfSigningPubKey), 34);
    CHECK(out[0], 33);
    CHECK(otxn_field(BUF(out), sfFee), 8);
    CHECK_TRUE(SAME(out, fee, 8));
    CHECK(otxn_field(BUF(out), sfMemos), 15);
    CHECK_TRUE(out[0] == 0xea && out[2] == 5 && out[14] == 0xe1);
    // As a number.
    CHECK(otxn_field(0, 0, sfSequence), 7);
    CHECK(otxn_field(0, 0, sfFlags), 0x80000000LL);
    CHECK(otxn_field(0, 0, sfTransactionType), 0);
    CHECK(otxn_field(0, 0, sfFee), (64LL << 56) + 12);
    CHECK(otxn_field(0, 0, sfAccount), TOO_BIG);
    CHECK(otxn_field(0, 4, sfSequence), INVALID_ARGUMENT);
    CHECK(otxn_field(PTR(out), 19, sfAccount), TOO_SMALL);
    CHECK(otxn_field(PTR(out), 20, sfAccount), 20);
    CHECK(otxn_field(BUF(out), sfURI), DOESNT_EXIST);
    CHECK(otxn_field(BUF(out), 0x60fff0U), INVALID_FIELD);
    CHECK(otxn_field(BUF(out), MINUS), INVALID_FIELD);
    CHECK(otxn_field(OUTSIDE, 20, sfAccount), OUT_OF_BOUNDS);
    CHECK(otxn_field(PTR(out), MINUS, sfAccount), OUT_OF_BOUNDS);
    CHECK(otxn_field(MEMORY - 19, 20, sfAccount), OUT_OF_BOUNDS);
END
