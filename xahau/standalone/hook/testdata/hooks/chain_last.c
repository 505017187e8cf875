// A later hook of a chain: says in its reason what WHO is and what it sees of the
// state, rejects if REJECT, and asks to run again if AGAIN.
#include "hookapi.h"

static uint8_t reason[32] = "                ", value[8];

int64_t hook(uint32_t reserved)
{
    _g(1, 1);
    hook_param(PTR(reason), 5, TEXT("WHO"));
    state(PTR(reason) + 6, 5, TEXT("shared"));
    reason[12] = '0' + reserved;
    reason[13] = '0' + hook_pos();
    if (hook_param(BUF(value), TEXT("AGAIN")) > 0 && reserved == 0)
        CHECK(hook_again(), 1);
    CHECK(state_set(TEXT("last"), TEXT("last")), 4);
    if (hook_param(BUF(value), TEXT("REJECT")) > 0)
        rollback(PTR(reason), 14, -5);
    accept(PTR(reason), 14, 5);
    return 0;
}
