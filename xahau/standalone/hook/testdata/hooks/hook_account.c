#include "hookapi.h"

static uint8_t out[22], want[20] = ACCOUNT(OWN);

BEGIN
    CHECK(hook_account(BUF(out)), 20);
    CHECK_TRUE(SAME(out, want, 20) && out[20] == 0);
    CHECK(hook_account(PTR(out), 19), TOO_SMALL);
    CHECK(hook_account(PTR(out), 0), TOO_SMALL);
    CHECK(hook_account(OUTSIDE, 20), OUT_OF_BOUNDS);
    CHECK(hook_account(PTR(out), MINUS), OUT_OF_BOUNDS);
    CHECK(hook_account(MEMORY - 19, 20), OUT_OF_BOUNDS);
END
