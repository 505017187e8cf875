#include "hookapi.h"

BEGIN
    CHECK(trace_float(TEXT("one"), float_one()), 0);
    CHECK(trace_float(TEXT("zero"), 0), 0);
    CHECK(trace_float(TEXT("invalid"), -5), 0);
    CHECK(trace_float(OUTSIDE, 1, 5), OUT_OF_BOUNDS);
    CHECK(trace_float(1, MINUS, 5), OUT_OF_BOUNDS);
END
