#include "hookapi.h"

static uint8_t out[300], key[40];

BEGIN
    CHECK(state(BUF(out), TEXT("abc")), 7);
    CHECK_TRUE(SAME(out, "present", 7) && out[7] == 0);
    // A short key is padded with zeros on the left.
    key[29] = 'a', key[30] = 'b', key[31] = 'c';
    CHECK(state(BUF(out), PTR(key), 32), 7);
    CHECK(state(0, 0, TEXT("number")), 258);
    CHECK(state(0, 0, TEXT("abc")), (int64_t)0x70726573656e74LL);
    CHECK(state(BUF(out), TEXT("ABC")), DOESNT_EXIST);
    CHECK(state(PTR(out), 6, TEXT("abc")), TOO_SMALL);
    CHECK(state(PTR(out), 0, TEXT("abc")), TOO_SMALL);
    CHECK(state(BUF(out), PTR(key), 0), TOO_SMALL);
    CHECK(state(BUF(out), PTR(key), 33), TOO_BIG);
    CHECK(state(OUTSIDE, 10, TEXT("abc")), OUT_OF_BOUNDS);
    CHECK(state(BUF(out), OUTSIDE, 3), OUT_OF_BOUNDS);
    CHECK(state(PTR(out), MINUS, TEXT("abc")), OUT_OF_BOUNDS);
    CHECK(state(BUF(out), PTR(key), MINUS), TOO_BIG);
    // A read sees what the run has written, and 0 bytes where it has deleted.
    CHECK(state_set(TEXT("changed"), TEXT("abc")), 7);
    CHECK(state(BUF(out), TEXT("abc")), 7);
    CHECK_TRUE(SAME(out, "changed", 7));
    CHECK(state_set(0, 0, TEXT("abc")), 0);
    CHECK(state(BUF(out), TEXT("abc")), 0);
    CHECK(state_set(PTR(out), 256, TEXT("long")), 256);
    CHECK(state(0, 0, TEXT("long")), TOO_BIG);
    out[0] = 0x80;
    CHECK(state_set(PTR(out), 8, TEXT("negative")), 8);
    CHECK(state(0, 0, TEXT("negative")), TOO_BIG);
END
