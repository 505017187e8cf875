#include "hookapi.h"

static uint8_t low[34], high[34], out[34], want[32] = HASH(0x99);

BEGIN
    FILL(low + 2, 31, 0x99);
    low[33] = 0x98;
    FILL(high + 2, 32, 0x99);
    low[1] = high[1] = 'o';
    // The upper bound is included, the lower is not.
    CHECK(ledger_keylet(BUF(out), BUF(low), BUF(high)), 34);
    CHECK_TRUE(SAME(out + 2, want, 32) && out[1] == 'o');
    CHECK(ledger_keylet(BUF(out), BUF(high), BUF(high)), DOESNT_EXIST);
    CHECK(ledger_keylet(BUF(out), BUF(high), BUF(low)), DOESNT_EXIST);
    high[1] = 'a';
    CHECK(ledger_keylet(BUF(out), BUF(low), BUF(high)), DOES_NOT_MATCH);
    CHECK(ledger_keylet(PTR(out), 33, BUF(low), BUF(high)), TOO_SMALL);
    CHECK(ledger_keylet(BUF(out), PTR(low), 33, BUF(high)), TOO_SMALL);
    CHECK(ledger_keylet(BUF(out), BUF(low), PTR(high), 0), TOO_SMALL);
    CHECK(ledger_keylet(PTR(out), 35, BUF(low), BUF(high)), TOO_BIG);
    CHECK(ledger_keylet(BUF(out), PTR(low), 35, BUF(high)), TOO_BIG);
    CHECK(ledger_keylet(BUF(out), BUF(low), PTR(high), 35), TOO_BIG);
    CHECK(ledger_keylet(OUTSIDE, 34, BUF(low), BUF(high)), OUT_OF_BOUNDS);
    CHECK(ledger_keylet(BUF(out), OUTSIDE, 34, BUF(high)), OUT_OF_BOUNDS);
    CHECK(ledger_keylet(BUF(out), BUF(low), OUTSIDE, 34), OUT_OF_BOUNDS);
    CHECK(ledger_keylet(BUF(out), BUF(low), PTR(high), MINUS), OUT_OF_BOUNDS);
END
