#include "hookapi.h"

static uint8_t a[32], b[32];

BEGIN
    CHECK(ledger_nonce(PTR(a), 31), TOO_SMALL);
    CHECK(ledger_nonce(OUTSIDE, 32), OUT_OF_BOUNDS);
    CHECK(ledger_nonce(PTR(a), MINUS), OUT_OF_BOUNDS);
    CHECK(ledger_nonce(BUF(a)), 32);
    CHECK(state_set(BUF(a), TEXT("first")), 32);
    FOR (i, 255)
        if (ledger_nonce(BUF(b)) != 32)
            FAIL("ledger_nonce(b) == 32");
    CHECK_TRUE(!SAME(a, b, 32));
    CHECK(ledger_nonce(BUF(b)), TOO_MANY_NONCES);
END
