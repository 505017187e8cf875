#include "hookapi.h"

BEGIN
    CHECK(ledger_seq(), 1000);
END
