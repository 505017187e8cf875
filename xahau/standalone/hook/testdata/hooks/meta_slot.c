// Runs twice: strong without metadata, and weak with it.
#include "hookapi.h"

BEGIN
    if (reserved == 0)
    {
        CHECK(meta_slot(0), PREREQUISITE_NOT_MET);
        CHECK(meta_slot(300), PREREQUISITE_NOT_MET);
    }
    else
    {
        CHECK(meta_slot(0), 1);
        CHECK(meta_slot(7), 7);
        CHECK(meta_slot(256), INVALID_ARGUMENT);
        CHECK(slot_type(1, 0), 0xe0002);
        CHECK(slot_subfield(1, sfTransactionResult, 0), 2);
        CHECK(slot(0, 0, 2), 0);
        CHECK(slot_subfield(1, sfAffectedNodes, 3), 3);
        CHECK(slot_count(3), 1);
        FOR (i, 251)
            if (meta_slot(0) < 1)
                FAIL("meta_slot(0) >= 1");
        CHECK(meta_slot(0), NO_FREE_SLOTS);
    }
END
