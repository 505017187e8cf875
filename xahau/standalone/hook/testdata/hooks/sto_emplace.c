#include "hookapi.h"
#include "object.h"

static uint8_t seq[] = {0x24, 0, 0, 0, 9}, amount[] = {0x61, 0x40, 0, 0, 0, 0, 0, 0, 5}, first[] = {0x11, 0, 0x61}, last[] = {0x00, 0x10, 0x10, 1};

BEGIN
    // Replace a field.
    CHECK(sto_emplace(BUF(scratch), BUF(object), BUF(seq), sfSequence), 60);
    CHECK_TRUE(SAME(scratch, object, 12) && scratch[12] == 9 && SAME(scratch + 13, object + 13, 47));
    // Put one in, at the beginning, in the middle and at the end.
    CHECK(sto_emplace(BUF(scratch), BUF(object), BUF(first), sfLedgerEntryType), 63);
    CHECK_TRUE(SAME(scratch, first, 3) && SAME(scratch + 3, object, 60));
    CHECK(sto_emplace(BUF(scratch), BUF(object), BUF(amount), sfAmount), 69);
    CHECK_TRUE(SAME(scratch, object, 13) && SAME(scratch + 13, amount, 9) && SAME(scratch + 22, object + 13, 47));
    CHECK(sto_emplace(BUF(scratch), BUF(object), BUF(last), 0x100010U), 64);
    CHECK_TRUE(SAME(scratch, object, 60) && SAME(scratch + 60, last, 4));
    CHECK(sto_validate(PTR(scratch), 64), 1);
    // No field takes one out.
    CHECK(sto_emplace(BUF(scratch), BUF(object), 0, 0, sfSequence), 55);

    CHECK(sto_emplace(PTR(scratch), 64, BUF(object), BUF(seq), sfSequence), TOO_SMALL);
    CHECK(sto_emplace(PTR(scratch), 65, BUF(object), BUF(seq), sfSequence), 60);
    CHECK(sto_emplace(BUF(scratch), PTR(object), 1, BUF(seq), sfSequence), TOO_SMALL);
    CHECK(sto_emplace(BUF(scratch), BUF(object), PTR(seq), 1, sfSequence), TOO_SMALL);
    CHECK(sto_emplace(40000, 25000, 1024, 16385, BUF(seq), sfSequence), TOO_BIG);
    CHECK(sto_emplace(40000, 25000, BUF(object), 8000, 4097, sfSequence), TOO_BIG);
    CHECK(sto_emplace(BUF(scratch), BUF(object), BUF(seq), sfAmount), PARSE_ERROR);
    CHECK(sto_emplace(BUF(scratch), PTR(object), 59, BUF(last), 0x100010U), PARSE_ERROR);
    CHECK(sto_emplace(PTR(object), 100, BUF(object), BUF(seq), sfSequence), MEM_OVERLAP);
    CHECK(sto_emplace(BUF(scratch), PTR(scratch) + 10, 20, BUF(seq), sfSequence), MEM_OVERLAP);
    CHECK(sto_emplace(BUF(scratch), BUF(object), PTR(scratch) + 10, 5, sfSequence), MEM_OVERLAP);
    CHECK(sto_emplace(BUF(scratch), BUF(object), PTR(object) + 8, 5, sfSequence), MEM_OVERLAP);
    CHECK(sto_emplace(OUTSIDE, 200, BUF(object), BUF(seq), sfSequence), OUT_OF_BOUNDS);
    CHECK(sto_emplace(BUF(scratch), OUTSIDE, 60, BUF(seq), sfSequence), OUT_OF_BOUNDS);
    CHECK(sto_emplace(BUF(scratch), BUF(object), OUTSIDE, 5, sfSequence), OUT_OF_BOUNDS);
    CHECK(sto_emplace(BUF(scratch), PTR(object), MINUS, BUF(seq), sfSequence), OUT_OF_BOUNDS);
END
