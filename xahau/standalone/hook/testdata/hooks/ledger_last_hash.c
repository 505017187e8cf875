#include "hookapi.h"

static uint8_t out[34], want[32] = HASH(0xab);

BEGIN
    CHECK(ledger_last_hash(BUF(out)), 32);
    CHECK_TRUE(SAME(out, want, 32) && out[32] == 0);
    CHECK(ledger_last_hash(PTR(out), 31), TOO_SMALL);
    CHECK(ledger_last_hash(PTR(out), 0), TOO_SMALL);
    CHECK(ledger_last_hash(OUTSIDE, 32), OUT_OF_BOUNDS);
    CHECK(ledger_last_hash(PTR(out), MINUS), OUT_OF_BOUNDS);
    CHECK(ledger_last_hash(MEMORY - 31, 32), OUT_OF_BOUNDS);
    CHECK(ledger_last_hash(MEMORY - 32, 32), 32);
END
