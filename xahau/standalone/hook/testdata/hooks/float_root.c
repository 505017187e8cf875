#include "hookapi.h"

BEGIN
    CHECK(float_root(float_set(0, 9), 2), float_set(0, 3));
    CHECK(float_root(float_one(), 5), float_one());
    CHECK(float_root(0, 2), 0);
    CHECK(float_root(0, 0), 0);
    CHECK(float_root(float_one(), 1), INVALID_ARGUMENT);
    CHECK(float_root(float_one(), 0), INVALID_ARGUMENT);
    CHECK(float_root(float_set(0, -8), 3), COMPLEX_NOT_SUPPORTED);
    CHECK(float_root(-1, 2), INVALID_FLOAT);
END
