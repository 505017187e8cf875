#include "hookapi.h"

static uint8_t value[300], key[40] = "k";

BEGIN
    CHECK(state_set(TEXT("value"), TEXT("key")), 5);
    CHECK(state_set(TEXT("other"), TEXT("abc")), 5);
    CHECK(state_set(0, 0, TEXT("number")), 0);
    CHECK(state_set(PTR(value), 256, PTR(key), 32), 256);
    CHECK(state_set(PTR(value), 257, TEXT("key")), TOO_BIG);
    CHECK(state_set(PTR(value), 5, PTR(key), 33), TOO_BIG);
    CHECK(state_set(PTR(value), 5, PTR(key), 0), TOO_SMALL);
    CHECK(state_set(OUTSIDE, 5, TEXT("key")), OUT_OF_BOUNDS);
    CHECK(state_set(PTR(value), 5, OUTSIDE, 3), OUT_OF_BOUNDS);
    CHECK(state_set(PTR(value), MINUS, TEXT("key")), OUT_OF_BOUNDS);
    CHECK(state_set(PTR(value), 5, PTR(key), MINUS), TOO_BIG);
    CHECK(state_set(MEMORY, 0, TEXT("key")), OUT_OF_BOUNDS);
    // The account of the test has the reserve for few entries if POOR, and there
    // is a bound for all.
    uint8_t poor[2];
    if (hook_param(BUF(poor), TEXT("POOR")) > 0)
    {
        CHECK(state_set(TEXT("v"), TEXT("fifth")), 1);
        CHECK(state_set(TEXT("v"), TEXT("sixth")), RESERVE_INSUFFICIENT);
        CHECK(state_set(TEXT("again"), TEXT("key")), 5);
    }
    else
    {
        FOR (i, 252)
        {
            key[0] = 'n', key[1] = i;
            if (state_set(TEXT("v"), PTR(key), 2) != 1)
                FAIL("state_set(v, n) == 1");
        }
        CHECK(state_set(TEXT("again"), TEXT("key")), TOO_MANY_STATE_MODIFICATIONS);
    }
END
