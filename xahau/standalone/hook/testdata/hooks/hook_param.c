#include "hookapi.h"

static uint8_t out[300], name[40];

BEGIN
    CHECK(hook_param(BUF(out), TEXT("P1")), 3);
    CHECK_TRUE(SAME(out, "one", 3) && out[3] == 0);
    CHECK(hook_param(BUF(out), TEXT("LONG")), 256);
    // A value that does not fit is cut.
    FILL(out, 10, 0);
    CHECK(hook_param(PTR(out), 2, TEXT("P1")), 2);
    CHECK_TRUE(SAME(out, "on", 2) && out[2] == 0);
    CHECK(hook_param(PTR(out), 0, TEXT("P1")), 0);
    // Overrides of hooks that ran before.
    CHECK(hook_param(BUF(out), TEXT("OVER")), 3);
    CHECK_TRUE(SAME(out, "new", 3));
    CHECK(hook_param(BUF(out), TEXT("ADDED")), 3);
    CHECK(hook_param(BUF(out), TEXT("TAKEN")), DOESNT_EXIST);
    CHECK(hook_param(BUF(out), TEXT("p1")), DOESNT_EXIST);
    CHECK(hook_param(BUF(out), PTR(name), 0), TOO_SMALL);
    CHECK(hook_param(BUF(out), PTR(name), 32), DOESNT_EXIST);
    CHECK(hook_param(BUF(out), PTR(name), 33), TOO_BIG);
    CHECK(hook_param(OUTSIDE, 10, TEXT("P1")), OUT_OF_BOUNDS);
    CHECK(hook_param(BUF(out), OUTSIDE, 2), OUT_OF_BOUNDS);
    CHECK(hook_param(PTR(out), MINUS, TEXT("P1")), OUT_OF_BOUNDS);
    CHECK(hook_param(BUF(out), PTR(name), MINUS), OUT_OF_BOUNDS);
END
