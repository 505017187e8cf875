#include "hookapi.h"

BEGIN
    CHECK(hook_pos(), 2);
END
