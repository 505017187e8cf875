#include "hookapi.h"

static uint8_t zero[20], out[20] = ACCOUNT(9);
static char genesis[] = "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh";
static uint8_t id[] = {0xb5, 0xf7, 0x62, 0x79, 0x8a, 0x53, 0xd5, 0x43, 0xa0, 0x14,
                       0xca, 0xf8, 0xb2, 0x97, 0xcf, 0xf8, 0xf2, 0xf9, 0x37, 0xe8};

BEGIN
    CHECK(util_accid(BUF(out), TEXT("rrrrrrrrrrrrrrrrrrrrrhoLvTp")), 20);
    CHECK_TRUE(SAME(out, zero, 20));
    // What follows a zero byte does not count.
    CHECK(util_accid(BUF(out), BUF(genesis)), 20);
    CHECK_TRUE(SAME(out, id, 20));
    CHECK(util_accid(BUF(out), TEXT("rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTi")), INVALID_ARGUMENT);
    CHECK(util_accid(BUF(out), TEXT("rHb9CJAWyB4rj91VRWn96DkukG4bwdty0h")), INVALID_ARGUMENT);
    CHECK(util_accid(BUF(out), PTR(genesis), 0), INVALID_ARGUMENT);
    CHECK(util_accid(BUF(out), PTR(genesis), 10), INVALID_ARGUMENT);
    CHECK(util_accid(BUF(out), PTR(genesis), 50), TOO_BIG);
    CHECK(util_accid(PTR(out), 19, BUF(genesis)), TOO_SMALL);
    CHECK(util_accid(OUTSIDE, 20, BUF(genesis)), OUT_OF_BOUNDS);
    CHECK(util_accid(BUF(out), OUTSIDE, 34), OUT_OF_BOUNDS);
    CHECK(util_accid(BUF(out), PTR(genesis), MINUS), OUT_OF_BOUNDS);
    CHECK(util_accid(MEMORY - 19, 20, BUF(genesis)), OUT_OF_BOUNDS);
END
