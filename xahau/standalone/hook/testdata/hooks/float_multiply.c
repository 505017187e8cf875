#include "hookapi.h"

BEGIN
    int64_t two = float_set(0, 2), big = float_set(80, 9000000000000000LL), tiny = float_set(-96, 1000000000000000LL);
    CHECK(float_multiply(two, float_set(0, 3)), float_set(0, 6));
    CHECK(float_multiply(two, float_set(-1, -15)), float_set(0, -3));
    CHECK(float_multiply(two, 0), 0);
    CHECK(float_multiply(0, two), 0);
    CHECK(float_multiply(big, two), XFL_OVERFLOW);
    CHECK(float_multiply(tiny, tiny), 0);
    CHECK(float_multiply(-1, two), INVALID_FLOAT);
    CHECK(float_multiply(two, 1), INVALID_FLOAT);
END
