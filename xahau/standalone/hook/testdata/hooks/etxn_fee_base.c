#include "hookapi.h"
#include "object.h"

BEGIN
    CHECK(etxn_fee_base(BUF(object)), PREREQUISITE_NOT_MET);
    CHECK(etxn_reserve(1), 1);
    CHECK(etxn_fee_base(BUF(object)), 25);
    CHECK(etxn_fee_base(PTR(object), 59), INVALID_TXN);
    CHECK(etxn_fee_base(BUF(scratch)), INVALID_TXN);
    CHECK(etxn_fee_base(OUTSIDE, 60), OUT_OF_BOUNDS);
    CHECK(etxn_fee_base(PTR(object), MINUS), OUT_OF_BOUNDS);
    CHECK(etxn_fee_base(MEMORY - 10, 60), OUT_OF_BOUNDS);
END
