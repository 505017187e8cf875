#include "hookapi.h"

static uint8_t out[40], name[40];

BEGIN
    CHECK(otxn_param(BUF(out), TEXT("PA")), 5);
    CHECK_TRUE(SAME(out, "value", 5) && out[5] == 0);
    FILL(name, 40, 'n');
    CHECK(otxn_param(BUF(out), PTR(name), 32), 4);
    CHECK(otxn_param(BUF(out), PTR(name), 31), DOESNT_EXIST);
    CHECK(otxn_param(BUF(out), TEXT("EMPTY")), DOESNT_EXIST);
    CHECK(otxn_param(BUF(out), TEXT("NONE")), DOESNT_EXIST);
    CHECK(otxn_param(BUF(out), TEXT("pa")), DOESNT_EXIST);
    CHECK(otxn_param(BUF(out), PTR(name), 0), TOO_SMALL);
    CHECK(otxn_param(BUF(out), PTR(name), 33), TOO_BIG);
    CHECK(otxn_param(PTR(out), 4, TEXT("PA")), TOO_SMALL);
    CHECK(otxn_param(PTR(out), 5, TEXT("PA")), 5);
    CHECK(otxn_param(OUTSIDE, 10, TEXT("PA")), OUT_OF_BOUNDS);
    CHECK(otxn_param(BUF(out), OUTSIDE, 2), OUT_OF_BOUNDS);
    CHECK(otxn_param(PTR(out), MINUS, TEXT("PA")), OUT_OF_BOUNDS);
    CHECK(otxn_param(BUF(out), PTR(name), MINUS), OUT_OF_BOUNDS);
END
