#include "hookapi.h"

BEGIN
    CHECK(float_negate(0), 0);
    CHECK(float_negate(float_one()), float_set(0, -1));
    CHECK(float_negate(float_set(0, -1)), float_one());
    CHECK(float_negate(-1), INVALID_FLOAT);
    CHECK(float_negate(1), INVALID_FLOAT);
END
