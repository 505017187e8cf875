#include "hookapi.h"

static uint8_t out[20], value[300], acc[20] = ACCOUNT(FOREIGN), own[20] = ACCOUNT(OWN), nobody[20] = ACCOUNT(NOBODY), ns[32] = HASH(0x5b), closed[32] = HASH(0x5c);

BEGIN
    // A hook of the account grants its namespace to this one.
    CHECK(state_foreign_set(TEXT("new"), TEXT("f"), BUF(ns), BUF(acc)), 3);
    CHECK(state_foreign(BUF(out), TEXT("f"), BUF(ns), BUF(acc)), 3);
    CHECK(state_foreign_set(0, 0, TEXT("g"), BUF(ns), BUF(acc)), 0);
    // One's own state needs no grant.
    CHECK(state_foreign_set(TEXT("mine"), TEXT("k"), BUF(closed), BUF(own)), 4);
    CHECK(state_foreign_set(TEXT("mine"), TEXT("k"), BUF(closed), 0, 0), 4);
    CHECK(state_foreign_set(TEXT("mine"), TEXT("k"), 0, 0, 0, 0), 4);
    CHECK(state_foreign_set(TEXT("v"), TEXT("f"), 0, 0, BUF(acc)), INVALID_ARGUMENT);
    CHECK(state_foreign_set(TEXT("v"), TEXT("f"), PTR(ns), 31, BUF(acc)), INVALID_ARGUMENT);
    CHECK(state_foreign_set(TEXT("v"), TEXT("f"), BUF(ns), PTR(acc), 21), INVALID_ARGUMENT);
    CHECK(state_foreign_set(PTR(value), 257, TEXT("f"), BUF(ns), BUF(acc)), TOO_BIG);
    CHECK(state_foreign_set(TEXT("v"), PTR(ns), 33, BUF(ns), BUF(acc)), TOO_BIG);
    CHECK(state_foreign_set(TEXT("v"), PTR(ns), 0, BUF(ns), BUF(acc)), TOO_SMALL);
    CHECK(state_foreign_set(OUTSIDE, 1, TEXT("f"), BUF(ns), BUF(acc)), OUT_OF_BOUNDS);
    CHECK(state_foreign_set(TEXT("v"), OUTSIDE, 1, BUF(ns), BUF(acc)), OUT_OF_BOUNDS);
    CHECK(state_foreign_set(TEXT("v"), TEXT("f"), OUTSIDE, 32, BUF(acc)), OUT_OF_BOUNDS);
    CHECK(state_foreign_set(TEXT("v"), TEXT("f"), BUF(ns), OUTSIDE, 20), OUT_OF_BOUNDS);
    CHECK(state_foreign_set(PTR(value), MINUS, TEXT("f"), BUF(ns), BUF(acc)), OUT_OF_BOUNDS);
    // An account without hooks cannot have granted anything.
    CHECK(state_foreign_set(TEXT("v"), TEXT("f"), BUF(ns), BUF(nobody)), INTERNAL_ERROR);
    // The grant of the other namespace is for another account's hook. After one
    // refusal nothing foreign can be written in this run.
    CHECK(state_foreign_set(TEXT("v"), TEXT("f"), BUF(closed), BUF(acc)), NOT_AUTHORIZED);
    CHECK(state_foreign_set(TEXT("v"), TEXT("f"), BUF(ns), BUF(acc)), PREVIOUS_FAILURE_PREVENTS_RETRY);
    CHECK(state_foreign_set(TEXT("mine"), TEXT("k"), BUF(closed), BUF(own)), 4);
END
