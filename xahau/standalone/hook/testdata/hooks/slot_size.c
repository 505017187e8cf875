#include "hookapi.h"

BEGIN
    CHECK(slot_size(1), DOESNT_EXIST);
    CHECK(otxn_slot(1), 1);
    CHECK_TRUE(slot_size(1) > 250);
    CHECK(slot_subfield(1, sfAccount, 2), 2);
    CHECK(slot_size(2), 21); // with its length
    CHECK(slot_subfield(1, sfSigningPubKey, 3), 3);
    CHECK(slot_size(3), 34);
    CHECK(slot_subfield(1, sfFee, 4), 4);
    CHECK(slot_size(4), 8);
    CHECK(slot_subfield(1, sfMemos, 5), 5);
    CHECK(slot_size(5), 15);
    CHECK(slot_subarray(5, 0, 6), 6);
    CHECK(slot_size(6), 7);
    CHECK(slot_size(MINUS), DOESNT_EXIST);
END
