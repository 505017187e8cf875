#include "hookapi.h"

#define EQ 1
#define LT 2
#define GT 4

BEGIN
    int64_t one = float_one(), two = float_set(0, 2), minus = float_set(0, -2);
    CHECK(float_compare(one, one, EQ), 1);
    CHECK(float_compare(one, two, EQ), 0);
    CHECK(float_compare(one, two, LT), 1);
    CHECK(float_compare(one, two, LT | EQ), 1);
    CHECK(float_compare(one, two, GT), 0);
    CHECK(float_compare(one, two, GT | LT), 1);
    CHECK(float_compare(one, one, GT | LT), 0);
    CHECK(float_compare(minus, 0, LT), 1);
    CHECK(float_compare(0, one, GT), 0);
    CHECK(float_compare(one, minus, GT | EQ), 1);
    CHECK(float_compare(one, two, 0), INVALID_ARGUMENT);
    CHECK(float_compare(one, two, EQ | LT | GT), INVALID_ARGUMENT);
    CHECK(float_compare(one, two, 8), INVALID_ARGUMENT);
    CHECK(float_compare(one, two, MINUS), INVALID_ARGUMENT);
    CHECK(float_compare(-1, two, EQ), INVALID_FLOAT);
    CHECK(float_compare(one, 5, EQ), INVALID_FLOAT);
END
