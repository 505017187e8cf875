#include "hookapi.h"

BEGIN
    CHECK(otxn_type(), 0);
END
