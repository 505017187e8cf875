#include "hookapi.h"

BEGIN
    CHECK(trace_num(TEXT("number"), -123456789012LL), 0);
    CHECK(trace_num(1, 0, 5), 0);
    CHECK(trace_num(OUTSIDE, 1, 5), OUT_OF_BOUNDS);
    CHECK(trace_num(1, MINUS, 5), OUT_OF_BOUNDS);
    CHECK(trace_num(MEMORY, 0, 5), OUT_OF_BOUNDS);
END
