#include "hookapi.h"

BEGIN
    CHECK(float_set(0, 1), float_one());
    CHECK(float_set(-5, 100000), float_one());
    CHECK(float_set(7, 0), 0);
    CHECK(float_set(0, -1), float_negate(float_one()));
    CHECK(float_set(-96, 1000000000000000LL), 4611686018427387904LL + (1LL << 54) + 1000000000000000LL);
    CHECK(float_set(-111, 1), INVALID_FLOAT);
    CHECK(float_set(96, 1), INVALID_FLOAT);
    CHECK(float_set(-97, 1000000000000000LL), INVALID_FLOAT);
    CHECK(float_set(80, 9000000000000000LL) > 0, 1);
    CHECK(float_set(80, 9999999999999999LL), INVALID_FLOAT); // its order counts as 16
    CHECK(float_set(81, 9999999999999999LL), INVALID_FLOAT);
    CHECK(float_set(0x7fffffff, 1), INVALID_FLOAT);
    CHECK(float_set(-0x7fffffff, 1), INVALID_FLOAT);
END
