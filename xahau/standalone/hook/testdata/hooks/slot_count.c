#include "hookapi.h"

BEGIN
    CHECK(slot_count(1), DOESNT_EXIST);
    CHECK(otxn_slot(1), 1);
    CHECK(slot_count(1), NOT_AN_ARRAY);
    CHECK(slot_subfield(1, sfMemos, 2), 2);
    CHECK(slot_count(2), 2);
    CHECK(slot_subfield(1, sfHookParameters, 3), 3);
    CHECK(slot_count(3), 4);
    CHECK(slot_subfield(1, sfFee, 4), 4);
    CHECK(slot_count(4), NOT_AN_ARRAY);
    CHECK(slot_count(MINUS), DOESNT_EXIST);
END
