// foreign writes "mine" to the state "key" of the account and namespace that its
// parameters name.
#include "hookapi.h"

static uint8_t owner[20], space[32];

BEGIN
    CHECK(hook_param(BUF(owner), TEXT("OWNER")), 20);
    CHECK(hook_param(BUF(space), TEXT("SPACE")), 32);
    CHECK(state_foreign_set(TEXT("mine"), TEXT("key"), BUF(space), BUF(owner)), 4);
END
