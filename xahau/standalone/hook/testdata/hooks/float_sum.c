#include "hookapi.h"

BEGIN
    int64_t one = float_one(), big = float_set(80, 9000000000000000LL);
    CHECK(float_sum(one, float_set(0, 2)), float_set(0, 3));
    CHECK(float_sum(one, float_set(0, -1)), 0);
    CHECK(float_sum(one, 0), one);
    CHECK(float_sum(0, one), one);
    CHECK(float_sum(one, float_set(-40, 1)), one);
    CHECK(float_sum(big, big), XFL_OVERFLOW);
    CHECK(float_sum(-1, one), INVALID_FLOAT);
    CHECK(float_sum(one, 7), INVALID_FLOAT);
END
