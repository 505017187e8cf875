#include "hookapi.h"

BEGIN
    CHECK(ledger_last_time(), 760000000);
END
