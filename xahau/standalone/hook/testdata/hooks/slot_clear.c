#include "hookapi.h"

BEGIN
    CHECK(slot_clear(1), DOESNT_EXIST);
    CHECK(slot_clear(MINUS), DOESNT_EXIST);
    CHECK(otxn_slot(0), 1);
    CHECK(otxn_slot(0), 2);
    CHECK(otxn_slot(0), 3);
    CHECK(slot_clear(2), 1);
    CHECK(slot_clear(2), DOESNT_EXIST);
    CHECK(slot_size(2), DOESNT_EXIST);
    CHECK(slot_clear(1), 1);
    // What was cleared first is used again first.
    CHECK(otxn_slot(0), 2);
    CHECK(otxn_slot(0), 1);
    CHECK(otxn_slot(0), 4);
END
