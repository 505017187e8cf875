#include "hookapi.h"

BEGIN
    CHECK(etxn_reserve(0), TOO_SMALL);
    CHECK(etxn_reserve(256), TOO_BIG);
    CHECK(etxn_reserve(MINUS), TOO_BIG);
    CHECK(etxn_reserve(255), 255);
    CHECK(etxn_reserve(1), ALREADY_SET);
    CHECK(etxn_reserve(0), ALREADY_SET);
END
