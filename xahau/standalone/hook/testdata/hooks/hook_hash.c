#include "hookapi.h"

static uint8_t self[32], other[32], want[32] = HASH(0xa0);

BEGIN
    CHECK(hook_hash(BUF(self), -1), 32);
    CHECK(hook_hash(BUF(other), 0), 32);
    CHECK_TRUE(SAME(other, want, 32));
    CHECK(hook_hash(BUF(other), 1), DOESNT_EXIST); // a blank position
    CHECK(hook_hash(BUF(other), 2), 32);
    CHECK_TRUE(SAME(other, self, 32));
    CHECK(hook_hash(BUF(other), 3), DOESNT_EXIST);
    CHECK(hook_hash(BUF(other), -2), DOESNT_EXIST);
    CHECK(hook_hash(PTR(other), 31, -1), TOO_SMALL);
    CHECK(hook_hash(OUTSIDE, 32, -1), OUT_OF_BOUNDS);
    CHECK(hook_hash(PTR(other), MINUS, 0), OUT_OF_BOUNDS);
END
