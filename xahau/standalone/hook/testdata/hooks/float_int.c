#include "hookapi.h"

BEGIN
    int64_t f = float_set(-3, 12345);
    CHECK(float_int(f, 0, 0), 12);
    CHECK(float_int(f, 2, 0), 1234);
    CHECK(float_int(float_negate(f), 2, 1), 1234);
    CHECK(float_int(float_negate(f), 2, 0), CANT_RETURN_NEGATIVE);
    CHECK(float_int(0, 99, 0), 0);
    CHECK(float_int(f, 16, 0), INVALID_ARGUMENT);
    CHECK(float_int(f, MINUS, 0), INVALID_ARGUMENT);
    CHECK(float_int(float_set(16, 1), 0, 0), TOO_BIG);
    CHECK(float_int(float_set(-20, 1), 0, 0), 0);
    CHECK(float_int(-1, 0, 0), INVALID_FLOAT);
END
