#include "hookapi.h"

static uint8_t own[20] = ACCOUNT(OWN), nobody[20] = ACCOUNT(NOBODY), k[34], id[32] = HASH(0x77), none[32] = HASH(0x78), offer[34], out[20];

BEGIN
    CHECK(util_keylet(BUF(k), 3, BUF(own), 0, 0, 0, 0), 34);
    CHECK(slot_set(BUF(k), 0), 1);
    CHECK(slot_type(1, 0), (10002LL << 16) + 257);
    CHECK(slot_subfield(1, sfOwnerCount, 2), 2);
    CHECK(slot(0, 0, 2), 3);
    CHECK(slot_set(BUF(k), 200), 200);
    CHECK(slot_set(BUF(k), 255), 255);
    CHECK(slot_set(BUF(k), 256), INVALID_ARGUMENT);
    CHECK(slot_set(PTR(k), 33, 0), INVALID_ARGUMENT);
    CHECK(slot_set(PTR(k), 0, 0), INVALID_ARGUMENT);
    // A keylet of another type does not find the entry; one of any type does.
    k[1] = 'o';
    CHECK(slot_set(BUF(k), 0), DOESNT_EXIST);
    k[0] = k[1] = 0;
    CHECK(slot_set(BUF(k), 5), 5);
    k[0] = 0x1c, k[1] = 0xd2;
    CHECK(slot_set(BUF(k), 5), 5);
    CHECK(util_keylet(BUF(k), 3, BUF(nobody), 0, 0, 0, 0), 34);
    CHECK(slot_set(BUF(k), 0), DOESNT_EXIST);
    FILL(k + 2, 32, 0);
    CHECK(slot_set(BUF(k), 0), DOESNT_EXIST);
    // Transactions by id.
    CHECK(slot_set(BUF(id), 7), 7);
    CHECK(slot_type(7, 0), (10001LL << 16) + 257);
    CHECK(slot_set(BUF(none), 0), DOESNT_EXIST);
    CHECK(slot_set(OUTSIDE, 34, 0), OUT_OF_BOUNDS);
    CHECK(slot_set(PTR(id), MINUS, 0), OUT_OF_BOUNDS);
    CHECK(slot_set(MEMORY - 31, 32, 0), OUT_OF_BOUNDS);
    FOR (i, 249)
        if (slot_set(BUF(id), 0) < 1)
            FAIL("slot_set(id, 0) >= 1");
    CHECK(slot_set(BUF(id), 0), NO_FREE_SLOTS);
    CHECK(slot_set(BUF(id), 9), 9);
END
