#include "hookapi.h"
#include "object.h"

BEGIN
    CHECK(sto_validate(BUF(object)), 1);
    CHECK(sto_validate(PTR(object), 44), 1);
    CHECK(sto_validate(PTR(object), 59), 0);
    CHECK(sto_validate(PTR(object) + 1, 59), 0);
    CHECK(sto_validate(PTR(object), 1), TOO_SMALL);
    CHECK(sto_validate(PTR(object), 0), TOO_SMALL);
    CHECK(sto_validate(OUTSIDE, 60), OUT_OF_BOUNDS);
    CHECK(sto_validate(PTR(object), MINUS), OUT_OF_BOUNDS);
    CHECK(sto_validate(MEMORY - 10, 11), OUT_OF_BOUNDS);
    // A type that does not exist.
    FILL(scratch, 60, 0x99);
    CHECK(sto_validate(PTR(scratch), 60), 0);
    // Objects in objects without end.
    FILL(scratch, 60, 0xe2);
    CHECK(sto_validate(PTR(scratch), 60), 0);
END
