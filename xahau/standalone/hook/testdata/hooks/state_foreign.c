#include "hookapi.h"

static uint8_t out[20], acc[20] = ACCOUNT(FOREIGN), own[20] = ACCOUNT(OWN), nobody[20] = ACCOUNT(NOBODY), ns[32] = HASH(0x5b), ownns[32] = HASH(0x5a);

BEGIN
    CHECK(state_foreign(BUF(out), TEXT("f"), BUF(ns), BUF(acc)), 7);
    CHECK_TRUE(SAME(out, "foreign", 7));
    CHECK(state_foreign(0, 0, TEXT("f"), BUF(ns), BUF(acc)), (int64_t)0x666f726569676eLL);
    CHECK(state_foreign(BUF(out), TEXT("abc"), BUF(ownns), BUF(own)), 7);
    CHECK(state_foreign(BUF(out), TEXT("abc"), 0, 0, 0, 0), 7);
    CHECK(state_foreign(BUF(out), TEXT("abc"), BUF(ownns), 0, 0), 7);
    CHECK(state_foreign(BUF(out), TEXT("abc"), BUF(ns), 0, 0), DOESNT_EXIST);
    CHECK(state_foreign(BUF(out), TEXT("abc"), BUF(ownns), BUF(acc)), DOESNT_EXIST);
    CHECK(state_foreign(BUF(out), TEXT("f"), BUF(ns), BUF(nobody)), DOESNT_EXIST);
    CHECK(state_foreign(BUF(out), TEXT("f"), 0, 0, BUF(acc)), INVALID_ARGUMENT);
    CHECK(state_foreign(BUF(out), TEXT("f"), PTR(ns), 31, BUF(acc)), INVALID_ARGUMENT);
    CHECK(state_foreign(BUF(out), TEXT("f"), BUF(ns), PTR(acc), 19), INVALID_ARGUMENT);
    CHECK(state_foreign(BUF(out), TEXT("f"), BUF(ns), 0, 20), INVALID_ARGUMENT);
    CHECK(state_foreign(PTR(out), 6, TEXT("f"), BUF(ns), BUF(acc)), TOO_SMALL);
    CHECK(state_foreign(PTR(out), 0, TEXT("f"), BUF(ns), BUF(acc)), TOO_SMALL);
    CHECK(state_foreign(BUF(out), PTR(ns), 33, BUF(ns), BUF(acc)), TOO_BIG);
    CHECK(state_foreign(BUF(out), PTR(ns), 0, BUF(ns), BUF(acc)), TOO_SMALL);
    CHECK(state_foreign(OUTSIDE, 7, TEXT("f"), BUF(ns), BUF(acc)), OUT_OF_BOUNDS);
    CHECK(state_foreign(BUF(out), OUTSIDE, 1, BUF(ns), BUF(acc)), OUT_OF_BOUNDS);
    CHECK(state_foreign(BUF(out), TEXT("f"), OUTSIDE, 32, BUF(acc)), OUT_OF_BOUNDS);
    CHECK(state_foreign(BUF(out), TEXT("f"), BUF(ns), OUTSIDE, 20), OUT_OF_BOUNDS);
    CHECK(state_foreign(PTR(out), MINUS, TEXT("f"), BUF(ns), BUF(acc)), OUT_OF_BOUNDS);
END
