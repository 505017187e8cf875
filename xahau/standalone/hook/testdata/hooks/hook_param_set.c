#include "hookapi.h"

static uint8_t hash[32] = HASH(0xa0), self[32], value[300], name[40] = "name";

BEGIN
    CHECK(hook_param_set(TEXT("value"), TEXT("P"), BUF(hash)), 5);
    CHECK(hook_param_set(TEXT("again"), TEXT("P"), BUF(hash)), 5);
    CHECK(hook_param_set(PTR(value), 0, TEXT("GONE"), BUF(hash)), 0);
    CHECK(hook_param_set(PTR(value), 256, PTR(name), 32, BUF(hash)), 256);
    CHECK(hook_param_set(PTR(value), 257, TEXT("P"), BUF(hash)), TOO_BIG);
    CHECK(hook_param_set(TEXT("v"), PTR(name), 33, BUF(hash)), TOO_BIG);
    CHECK(hook_param_set(TEXT("v"), PTR(name), 0, BUF(hash)), TOO_SMALL);
    CHECK(hook_param_set(TEXT("v"), TEXT("P"), PTR(hash), 31), INVALID_ARGUMENT);
    CHECK(hook_param_set(TEXT("v"), TEXT("P"), PTR(hash), 0), INVALID_ARGUMENT);
    CHECK(hook_param_set(OUTSIDE, 1, TEXT("P"), BUF(hash)), OUT_OF_BOUNDS);
    CHECK(hook_param_set(TEXT("v"), OUTSIDE, 1, BUF(hash)), OUT_OF_BOUNDS);
    CHECK(hook_param_set(TEXT("v"), TEXT("P"), OUTSIDE, 32), OUT_OF_BOUNDS);
    CHECK(hook_param_set(PTR(value), MINUS, TEXT("P"), BUF(hash)), OUT_OF_BOUNDS);
    // A hook can override its own.
    CHECK(hook_hash(BUF(self), -1), 32);
    CHECK(hook_param_set(TEXT("mine"), TEXT("P1"), BUF(self)), 4);
    CHECK(hook_param(BUF(value), TEXT("P1")), 4);
    FOR (i, 11)
        CHECK(hook_param_set(TEXT("value"), TEXT("Q"), BUF(hash)), 5);
    CHECK(hook_param_set(TEXT("value"), TEXT("Q"), BUF(hash)), TOO_MANY_PARAMS);
END
