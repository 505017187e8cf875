// rollback: ends the run and rejects the transaction.
#include "hookapi.h"

static uint8_t mode[8];
static uint8_t wide[] = {'w', 0, 'i', 0, 'd', 0, 'e', 0};

BEGIN
    CHECK(rollback(OUTSIDE, 5, 1), OUT_OF_BOUNDS);
    CHECK(rollback(MEMORY - 4, 5, 1), OUT_OF_BOUNDS);
    if (hook_param(BUF(mode), TEXT("MODE")) < 0)
        rollback(0, 50, -7);
    rollback(BUF(wide), 123456789012LL);
    return 0;
}
