// plain accepts everything.
#include "hookapi.h"

BEGIN
END
