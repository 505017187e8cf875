#include "hookapi.h"
#include "object.h"

BEGIN
    CHECK(sto_erase(BUF(scratch), BUF(object), sfSequence), 55);
    CHECK_TRUE(SAME(scratch, object, 8) && SAME(scratch + 8, object + 13, 47));
    CHECK(sto_erase(BUF(scratch), BUF(object), sfMemos), 44);
    CHECK(sto_erase(BUF(scratch), BUF(object), sfTransactionType), 57);
    CHECK(sto_erase(BUF(scratch), BUF(object), sfAmount), DOESNT_EXIST);
    CHECK(sto_erase(PTR(scratch), 59, BUF(object), sfSequence), TOO_SMALL);
    CHECK(sto_erase(BUF(scratch), PTR(object), 1, sfSequence), TOO_SMALL);
    CHECK(sto_erase(40000, 25000, 1024, 16385, sfSequence), TOO_BIG);
    CHECK(sto_erase(PTR(object), 100, BUF(object), sfSequence), MEM_OVERLAP);
    CHECK(sto_erase(OUTSIDE, 200, BUF(object), sfSequence), OUT_OF_BOUNDS);
    CHECK(sto_erase(BUF(scratch), OUTSIDE, 60, sfSequence), OUT_OF_BOUNDS);
    CHECK(sto_erase(BUF(scratch), PTR(object), MINUS, sfSequence), OUT_OF_BOUNDS);
    CHECK(sto_erase(BUF(scratch), PTR(object), 59, sfAmount), DOESNT_EXIST);
    CHECK(sto_erase(BUF(scratch), PTR(object), 12, sfAmount), PARSE_ERROR);
END
