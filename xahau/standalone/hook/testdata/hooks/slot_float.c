#include "hookapi.h"

static uint8_t k[34];

BEGIN
    CHECK(slot_float(1), DOESNT_EXIST);
    CHECK(otxn_slot(1), 1);
    CHECK(slot_float(1), NOT_AN_AMOUNT);
    CHECK(slot_subfield(1, sfAmount, 2), 2);
    CHECK(slot_float(2), float_set(0, 5)); // 5,000,000 drops
    CHECK(slot_subfield(1, sfFee, 2), 2);
    CHECK(slot_float(2), float_set(-6, 12));
    FILL(k + 2, 32, 0x99);
    CHECK(slot_set(BUF(k), 3), 3);
    CHECK(slot_subfield(3, 0x60004U, 4), 4);
    CHECK(slot_float(4), float_set(-1, 15));
    CHECK(slot_subfield(1, sfSequence, 5), 5);
    CHECK(slot_float(5), NOT_AN_AMOUNT);
    CHECK(slot_float(MINUS), DOESNT_EXIST);
END
