#include "hookapi.h"
#include "object.h"

BEGIN
    CHECK(sto_subfield(BUF(object), sfTransactionType), AT(1, 2));
    CHECK(sto_subfield(BUF(object), sfFlags), AT(4, 4));
    CHECK(sto_subfield(BUF(object), sfFee), AT(14, 8));
    CHECK(sto_subfield(BUF(object), sfAccount), AT(24, 20));
    // Arrays come with header and end.
    CHECK(sto_subfield(BUF(object), sfMemos), AT(44, 16));
    CHECK(sto_subfield(PTR(object) + 46, 7, sfMemoData), AT(2, 5));
    CHECK(sto_subfield(BUF(object), sfAmount), DOESNT_EXIST);
    CHECK(sto_subfield(BUF(object), 0), DOESNT_EXIST);
    CHECK(sto_subfield(PTR(object), 59, sfAmount), PARSE_ERROR);
    CHECK(sto_subfield(PTR(object), 12, sfAmount), PARSE_ERROR);
    CHECK(sto_subfield(PTR(object), 1, sfAmount), TOO_SMALL);
    CHECK(sto_subfield(OUTSIDE, 60, sfAmount), OUT_OF_BOUNDS);
    CHECK(sto_subfield(PTR(object), MINUS, sfAmount), OUT_OF_BOUNDS);
END
