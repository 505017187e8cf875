#include "hookapi.h"

BEGIN
    CHECK(fee_base(), 10);
END
