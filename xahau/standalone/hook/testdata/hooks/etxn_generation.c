#include "hookapi.h"

BEGIN
    CHECK(etxn_generation(), 1);
    CHECK(etxn_reserve(2), 2);
    CHECK(etxn_generation(), 1);
END
