// Its cbak keeps what it is told of an emitted transaction.
#include "hookapi.h"

static uint8_t id[32], pseudo[32], out[40];

BEGIN
END

int64_t cbak(uint32_t reserved)
{
    _g(1, 1);
    CHECK(otxn_type(), 0);
    CHECK(otxn_burden(), 3);
    CHECK(otxn_generation(), 2);
    CHECK(otxn_id(BUF(id), 0), 32);
    CHECK(otxn_id(BUF(pseudo), 1), 32);
    CHECK(otxn_field(0, 0, sfSequence), 7);
    CHECK(otxn_slot(5), 5);
    CHECK(slot_subfield(5, sfSequence, 6), 6);
    CHECK(slot(0, 0, 6), 7);
    CHECK(meta_slot(7), 7);
    CHECK(hook_again(), PREREQUISITE_NOT_MET);
    CHECK(state_set(BUF(id), TEXT("id")), 32);
    CHECK(state_set(BUF(pseudo), TEXT("pseudo")), 32);
    accept(TEXT("called back"), reserved);
    return 0;
}
