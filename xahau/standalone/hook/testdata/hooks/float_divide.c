#include "hookapi.h"

BEGIN
    CHECK(float_divide(float_set(0, 6), float_set(0, 2)), float_set(0, 3));
    CHECK(float_divide(float_one(), float_set(0, -8)), float_set(-3, -125));
    CHECK(float_divide(float_set(0, 6), float_one()), float_set(0, 6));
    CHECK(float_divide(0, float_one()), 0);
    CHECK(float_divide(float_one(), 0), DIVISION_BY_ZERO);
    CHECK(float_divide(float_set(80, 9000000000000000LL), float_set(-1, 1)), XFL_OVERFLOW);
    CHECK(float_divide(-1, float_one()), INVALID_FLOAT);
    CHECK(float_divide(float_one(), 3), INVALID_FLOAT);
END
