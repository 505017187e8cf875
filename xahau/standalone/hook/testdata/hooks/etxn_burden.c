#include "hookapi.h"

BEGIN
    CHECK(etxn_burden(), PREREQUISITE_NOT_MET);
    CHECK(etxn_reserve(5), 5);
    CHECK(etxn_burden(), 5);
END
