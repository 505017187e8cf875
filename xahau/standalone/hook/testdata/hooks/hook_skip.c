#include "hookapi.h"

static uint8_t hash[32] = HASH(0xa0), self[32], none[32] = HASH(0x0f);

BEGIN
    CHECK(hook_skip(BUF(hash), 1), DOESNT_EXIST);
    CHECK(hook_skip(BUF(hash), 0), 1);
    CHECK(hook_skip(BUF(hash), 0), 1);
    CHECK(hook_skip(BUF(hash), 1), 1);
    CHECK(hook_skip(BUF(hash), 1), DOESNT_EXIST);
    CHECK(hook_skip(BUF(hash), 0), 1);
    CHECK(hook_hash(BUF(self), -1), 32);
    CHECK(hook_skip(BUF(self), 0), 1);
    CHECK(hook_skip(BUF(none), 0), DOESNT_EXIST);
    CHECK(hook_skip(BUF(hash), 2), INVALID_ARGUMENT);
    CHECK(hook_skip(BUF(hash), MINUS), INVALID_ARGUMENT);
    CHECK(hook_skip(PTR(hash), 31, 0), INVALID_ARGUMENT);
    CHECK(hook_skip(PTR(hash), 33, 0), INVALID_ARGUMENT);
    CHECK(hook_skip(OUTSIDE, 32, 0), OUT_OF_BOUNDS);
    CHECK(hook_skip(PTR(hash), MINUS, 0), OUT_OF_BOUNDS);
END
