#include "hookapi.h"

BEGIN
    CHECK(float_one(), 6089866696204910592LL);
END
