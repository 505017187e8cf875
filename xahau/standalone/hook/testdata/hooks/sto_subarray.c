#include "hookapi.h"
#include "object.h"

BEGIN
    CHECK(sto_subarray(PTR(object) + 44, 16, 0), AT(1, 9));
    CHECK(sto_subarray(PTR(object) + 44, 16, 1), AT(10, 5));
    CHECK(sto_subarray(PTR(object) + 44, 16, 2), DOESNT_EXIST);
    CHECK(sto_subarray(PTR(object) + 44, 16, MINUS), DOESNT_EXIST);
    // Without header and end, too.
    CHECK(sto_subarray(PTR(object) + 45, 14, 1), AT(9, 5));
    // A header of two bytes.
    scratch[0] = 0xf0, scratch[1] = 0x13;
    FILL(scratch + 2, 1, 0xe0);
    scratch[3] = 0x17, scratch[4] = 0x70, scratch[5] = 0x18, scratch[6] = 1, scratch[7] = 'n', scratch[8] = 0xe1, scratch[9] = 0xf1;
    CHECK(sto_subarray(PTR(scratch), 10, 0), AT(2, 7));
    CHECK(sto_subarray(PTR(scratch), 10, 1), DOESNT_EXIST);
    CHECK(sto_subarray(PTR(object) + 44, 15, 2), PARSE_ERROR);
    CHECK(sto_subarray(PTR(object) + 44, 1, 0), TOO_SMALL);
    CHECK(sto_subarray(PTR(object) + 44, 2, 0), PARSE_ERROR);
    CHECK(sto_subarray(OUTSIDE, 16, 0), OUT_OF_BOUNDS);
    CHECK(sto_subarray(PTR(object), MINUS, 0), OUT_OF_BOUNDS);
END
