// accept: ends the run and lets the transaction go through. A reason outside of
// memory is an error and does not end it.
#include "hookapi.h"

BEGIN
    CHECK(accept(OUTSIDE, 5, 1), OUT_OF_BOUNDS);
    CHECK(accept(MEMORY, 0, 1), OUT_OF_BOUNDS);
    CHECK(accept(MEMORY - 4, 5, 1), OUT_OF_BOUNDS);
    CHECK(accept(1, MEMORY, 1), 0); // cut to 256 bytes, so this ends the run
    FAIL("not reached");
    return 0;
}
