#include "hookapi.h"

static uint8_t out[2];

// EMITTED says that the transaction was emitted in the second generation.
BEGIN
    int emitted = hook_param(BUF(out), TEXT("EMITTED")) > 0;
    CHECK(otxn_generation(), emitted ? 2 : 0);
    CHECK(etxn_generation(), emitted ? 3 : 1);
END
