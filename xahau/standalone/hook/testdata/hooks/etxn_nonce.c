#include "hookapi.h"

static uint8_t a[40], b[40], before[40];

BEGIN
    CHECK(etxn_nonce(PTR(a), 31), TOO_SMALL);
    CHECK(etxn_nonce(OUTSIDE, 32), OUT_OF_BOUNDS);
    CHECK(etxn_nonce(PTR(a), MINUS), OUT_OF_BOUNDS);
    CHECK(etxn_nonce(MEMORY - 31, 32), OUT_OF_BOUNDS);
    // The test compares the first with a hash of its own.
    CHECK(etxn_nonce(BUF(a)), 32);
    CHECK(state_set(PTR(a), 32, TEXT("first")), 32);
    CHECK(a[32], 0);
    int same = 0;
    FOR (i, 255)
    {
        if (etxn_nonce(BUF(b)) != 32)
            FAIL("etxn_nonce(b) == 32");
        if (*(uint64_t *)a == *(uint64_t *)b)
            same = 1;
        *(uint64_t *)a = *(uint64_t *)b;
    }
    CHECK(same, 0);
    CHECK(etxn_nonce(BUF(b)), TOO_MANY_NONCES);
    CHECK(etxn_nonce(PTR(b), 31), TOO_MANY_NONCES);
    CHECK(etxn_nonce(OUTSIDE, 32), OUT_OF_BOUNDS);
END
