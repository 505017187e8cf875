#include "hookapi.h"

static uint8_t out[2];

// EMITTED says that the transaction was emitted with a burden of 3.
BEGIN
    int emitted = hook_param(BUF(out), TEXT("EMITTED")) > 0;
    CHECK(otxn_burden(), emitted ? 3 : 1);
    CHECK(etxn_reserve(4), 4);
    CHECK(etxn_burden(), emitted ? 12 : 4);
END
