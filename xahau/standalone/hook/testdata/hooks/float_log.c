#include "hookapi.h"

BEGIN
    CHECK(float_log(float_set(0, 1000)), float_set(0, 3));
    CHECK(float_log(float_one()), 0);
    CHECK(float_log(float_set(-2, 1)), float_set(0, -2));
    CHECK(float_log(0), INVALID_ARGUMENT);
    CHECK(float_log(float_set(0, -1)), COMPLEX_NOT_SUPPORTED);
    CHECK(float_log(-1), INVALID_FLOAT);
END
