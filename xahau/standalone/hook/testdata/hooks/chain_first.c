// The first of a chain: overrides a parameter of the hook that its parameter NEXT
// names, skips the one that SKIP names, and writes state for it to see.
#include "hookapi.h"

static uint8_t next[32], skip[32];

BEGIN
    if (hook_param(BUF(skip), TEXT("SKIP")) == 32)
        CHECK(hook_skip(BUF(skip), 0), 1);
    if (hook_param(BUF(next), TEXT("NEXT")) == 32)
        CHECK(hook_param_set(TEXT("set"), TEXT("WHO"), BUF(next)), 3);
    CHECK(state_set(TEXT("first"), TEXT("shared")), 5);
END
