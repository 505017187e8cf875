#include "hookapi.h"

static uint8_t data[] = {0xde, 0xad, 0xbe, 0xef}, wide[] = {'w', 0, 'i', 0, 'd', 0, 'e', 0};

BEGIN
    CHECK(trace(TEXT("hex"), BUF(data), 1), 0);
    CHECK(trace(TEXT("text"), TEXT("hello"), 0), 0);
    CHECK(trace(TEXT("wide"), BUF(wide), 0), 0);
    CHECK(trace(PTR("ended"), sizeof("ended"), TEXT("by zero"), 0), 0);
    CHECK(trace(PTR(data), 0, PTR(data), 0, 0), 0);
    CHECK(trace(OUTSIDE, 1, BUF(data), 0), OUT_OF_BOUNDS);
    CHECK(trace(TEXT("x"), OUTSIDE, 1, 0), OUT_OF_BOUNDS);
    CHECK(trace(PTR(data), MINUS, BUF(data), 0), OUT_OF_BOUNDS);
    CHECK(trace(TEXT("x"), PTR(data), MINUS, 0), OUT_OF_BOUNDS);
    CHECK(trace(TEXT("x"), MEMORY, 0, 0), OUT_OF_BOUNDS);
END
