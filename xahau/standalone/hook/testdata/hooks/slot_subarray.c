#include "hookapi.h"

static uint8_t out[20];

BEGIN
    CHECK(slot_subarray(1, 0, 0), DOESNT_EXIST);
    CHECK(otxn_slot(1), 1);
    CHECK(slot_subarray(1, 0, 0), NOT_AN_ARRAY);
    CHECK(slot_subfield(1, sfMemos, 2), 2);
    CHECK(slot_subarray(2, 1, 0), 3);
    CHECK(slot_type(3, 0), sfMemo);
    CHECK(slot_subfield(3, sfMemoData, 4), 4);
    CHECK(slot(BUF(out), 4), 3);
    CHECK_TRUE(out[0] == 2 && out[1] == 1 && out[2] == 2);
    CHECK(slot_subarray(2, 2, 0), DOESNT_EXIST);
    CHECK(slot_subarray(2, MINUS, 0), DOESNT_EXIST);
    CHECK(slot_subarray(2, 0, 256), INVALID_ARGUMENT);
    CHECK(slot_subarray(2, 0, 255), 255);
    CHECK(slot_subarray(MINUS, 0, 0), DOESNT_EXIST);
    // Into the slot of the array itself.
    CHECK(slot_subarray(2, 0, 2), 2);
    CHECK(slot_type(2, 0), sfMemo);
    CHECK(slot_subfield(1, sfMemos, 2), 2);
    FOR (i, 250)
        if (otxn_slot(0) < 1)
            FAIL("otxn_slot(0) >= 1");
    CHECK(slot_subarray(2, 0, 0), NO_FREE_SLOTS);
END
