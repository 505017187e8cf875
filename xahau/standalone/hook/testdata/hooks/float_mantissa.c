#include "hookapi.h"

BEGIN
    CHECK(float_mantissa(float_one()), 1000000000000000LL);
    CHECK(float_mantissa(float_set(3, -25)), 2500000000000000LL);
    CHECK(float_mantissa(0), 0);
    CHECK(float_mantissa(-1), INVALID_FLOAT);
END
