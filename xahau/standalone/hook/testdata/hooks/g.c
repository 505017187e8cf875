// _g: counts how often it was called with an id, and ends the run when that is more
// than the bound. The parameter MODE chooses how.
#include "hookapi.h"

static uint8_t mode[8];

BEGIN
    CHECK(hook_param(BUF(mode), TEXT("MODE")), 1);
    CHECK(_g(77, 2), 1);
    CHECK(_g(77, 2), 1);
    // Another id counts by itself, and the bound of a call is that call's.
    CHECK(_g(78, 1), 1);
    CHECK(_g(77, 3), 1);
    if (mode[0] == '1')
        _g(77, 3);
    int n = 0;
    for (volatile int i = 0; _g(5, 11), i < 10; ++i)
        ++n;
    CHECK(n, 10);
    if (mode[0] == '2')
        for (volatile int i = 0; _g(6, 5), i < 10; ++i)
            ++n;
END
