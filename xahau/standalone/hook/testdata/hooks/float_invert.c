#include "hookapi.h"

BEGIN
    CHECK(float_invert(float_one()), float_one());
    CHECK(float_invert(float_set(0, 2)), float_set(-1, 5));
    CHECK(float_invert(float_set(0, -4)), float_set(-2, -25));
    CHECK(float_invert(0), DIVISION_BY_ZERO);
    CHECK(float_invert(-1), INVALID_FLOAT);
END
