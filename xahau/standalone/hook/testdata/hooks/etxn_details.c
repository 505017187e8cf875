#include "hookapi.h"

static uint8_t out[140], id[32], hash[32];

// The parameter CBAK says that the hook has a callback.
BEGIN
    uint8_t cbak[4];
    int64_t size = hook_param(BUF(cbak), TEXT("CBAK")) > 0 ? 138 : 116;
    CHECK(etxn_details(BUF(out)), PREREQUISITE_NOT_MET);
    CHECK(etxn_reserve(3), 3);
    CHECK(etxn_details(PTR(out), size - 1), TOO_SMALL);
    CHECK(etxn_details(PTR(out), 0), TOO_SMALL);
    CHECK(etxn_details(OUTSIDE, 138), OUT_OF_BOUNDS);
    CHECK(etxn_details(PTR(out), MINUS), OUT_OF_BOUNDS);
    CHECK(etxn_details(MEMORY - 100, 138), OUT_OF_BOUNDS);
    CHECK(etxn_details(PTR(out), size), size);
    CHECK(out[size], 0);
    CHECK(sto_subfield(PTR(out) + 1, size - 2, 0x2002eU), ((int64_t)2 << 32) + 4);
    CHECK(otxn_id(BUF(id), 0), 32);
    CHECK_TRUE(SAME(id, out + 17, 32));
    CHECK(hook_hash(BUF(hash), -1), 32);
    CHECK_TRUE(SAME(hash, out + 83, 32));
    CHECK(state_set(PTR(out), size, TEXT("details")), size);
END
