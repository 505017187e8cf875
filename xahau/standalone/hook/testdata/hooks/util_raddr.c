#include "hookapi.h"

static uint8_t zero[20], own[20] = ACCOUNT(OWN), out[64], back[20];

BEGIN
    CHECK(util_raddr(BUF(out), BUF(zero)), 27);
    CHECK_TRUE(SAME(out, "rrrrrrrrrrrrrrrrrrrrrhoLvTp", 27));
    int64_t n = util_raddr(BUF(out), BUF(own));
    CHECK_TRUE(n > 25 && n < 36);
    CHECK(util_accid(BUF(back), PTR(out), n), 20);
    CHECK_TRUE(SAME(back, own, 20));
    CHECK(util_raddr(PTR(out), 26, BUF(zero)), TOO_SMALL);
    CHECK(util_raddr(PTR(out), 27, BUF(zero)), 27);
    CHECK(util_raddr(BUF(out), PTR(own), 19), INVALID_ARGUMENT);
    CHECK(util_raddr(BUF(out), PTR(own), 21), INVALID_ARGUMENT);
    CHECK(util_raddr(BUF(out), PTR(own), 0), INVALID_ARGUMENT);
    CHECK(util_raddr(OUTSIDE, 64, BUF(own)), OUT_OF_BOUNDS);
    CHECK(util_raddr(BUF(out), OUTSIDE, 20), OUT_OF_BOUNDS);
    CHECK(util_raddr(BUF(out), PTR(own), MINUS), OUT_OF_BOUNDS);
    CHECK(util_raddr(PTR(out), MINUS, BUF(own)), OUT_OF_BOUNDS);
    CHECK(util_raddr(BUF(out), MEMORY - 10, 20), OUT_OF_BOUNDS);
END
