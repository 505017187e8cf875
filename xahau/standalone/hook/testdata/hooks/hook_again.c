// Weak runs (argument 1) cannot ask for another.
#include "hookapi.h"

BEGIN
    if (reserved == 0)
    {
        CHECK(hook_again(), 1);
        CHECK(hook_again(), ALREADY_SET);
    }
    else
        CHECK(hook_again(), PREREQUISITE_NOT_MET);
END
