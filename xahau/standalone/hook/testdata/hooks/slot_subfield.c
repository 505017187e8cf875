#include "hookapi.h"

BEGIN
    CHECK(slot_subfield(1, sfFee, 0), DOESNT_EXIST);
    CHECK(otxn_slot(1), 1);
    CHECK(slot_subfield(1, sfFee, 0), 2);
    CHECK(slot_type(2, 0), sfFee);
    CHECK(slot_subfield(2, sfFee, 0), NOT_AN_OBJECT);
    CHECK(slot_subfield(1, sfURI, 0), DOESNT_EXIST);
    CHECK(slot_subfield(1, 0x60fff0U, 0), INVALID_FIELD);
    CHECK(slot_subfield(1, MINUS, 0), INVALID_FIELD);
    CHECK(slot_subfield(1, sfFee, 256), INVALID_ARGUMENT);
    CHECK(slot_subfield(MINUS, sfFee, 0), DOESNT_EXIST);
    CHECK(slot_subfield(1, sfMemos, 3), 3);
    CHECK(slot_subfield(3, sfMemo, 0), NOT_AN_OBJECT);
    // Into the slot of the object itself.
    CHECK(slot_subfield(1, sfFee, 1), 1);
    CHECK(slot_type(1, 0), sfFee);
    CHECK(otxn_slot(1), 1);
    FOR (i, 252)
        if (otxn_slot(0) < 1)
            FAIL("otxn_slot(0) >= 1");
    CHECK(slot_subfield(1, sfFee, 0), NO_FREE_SLOTS);
    CHECK(slot_subfield(1, sfFee, 8), 8);
END
