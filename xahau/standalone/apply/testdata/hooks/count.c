// count counts the transactions in its state, as simple hooks do.
#include "hookapi.h"

static uint8_t n[8];

BEGIN
    state(BUF(n), TEXT("n"));
    for (int i = 7; _g(2, 9), i >= 0; --i)
        if (++n[i] != 0)
            break;
    CHECK(state_set(BUF(n), TEXT("n")), 8);
END
