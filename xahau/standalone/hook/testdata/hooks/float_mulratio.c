#include "hookapi.h"

BEGIN
    int64_t one = float_one();
    CHECK(float_mulratio(one, 0, 3, 2), float_set(-1, 15));
    CHECK(float_mulratio(one, 0, 1, 3), float_set(-16, 3333333333333333LL));
    CHECK(float_mulratio(one, 1, 1, 3), float_set(-16, 3333333333333334LL));
    CHECK(float_mulratio(0, 0, 1, 3), 0);
    CHECK(float_mulratio(one, 0, 0, 3), 0);
    CHECK(float_mulratio(one, 0, 1, 0), DIVISION_BY_ZERO);
    CHECK(float_mulratio(float_set(80, 9000000000000000LL), 0, 2, 1), XFL_OVERFLOW);
    CHECK(float_mulratio(-1, 0, 1, 1), INVALID_FLOAT);
END
