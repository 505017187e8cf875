#include "hookapi.h"

BEGIN
    CHECK(float_sign(float_one()), 0);
    CHECK(float_sign(float_set(0, -1)), 1);
    CHECK(float_sign(0), 0);
    CHECK(float_sign(-1), INVALID_FLOAT);
END
