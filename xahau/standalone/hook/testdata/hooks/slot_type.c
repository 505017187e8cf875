#include "hookapi.h"

static uint8_t k[34];

BEGIN
    CHECK(slot_type(1, 0), DOESNT_EXIST);
    CHECK(otxn_slot(1), 1);
    CHECK(slot_type(1, 0), (10001LL << 16) + 257);
    CHECK(slot_type(1, 1), NOT_AN_AMOUNT);
    CHECK(slot_type(1, 2), INVALID_ARGUMENT);
    CHECK(slot_subfield(1, sfAmount, 2), 2);
    CHECK(slot_type(2, 0), sfAmount);
    CHECK(slot_type(2, 1), 1);
    FILL(k + 2, 32, 0x99);
    CHECK(slot_set(BUF(k), 3), 3);
    CHECK(slot_subfield(3, 0x60004U, 4), 4); // TakerPays
    CHECK(slot_type(4, 1), 0);
    CHECK(slot_type(MINUS, 0), DOESNT_EXIST);
END
