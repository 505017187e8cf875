#include "hookapi.h"

static uint8_t out[34];
// The first half of SHA-512 of "abc" and of nothing.
static uint8_t abc[] = {0xdd, 0xaf, 0x35, 0xa1, 0x93, 0x61, 0x7a, 0xba, 0xcc, 0x41, 0x73,
                        0x49, 0xae, 0x20, 0x41, 0x31, 0x12, 0xe6, 0xfa, 0x4e, 0x89, 0xa9,
                        0x7e, 0xa2, 0x0a, 0x9e, 0xee, 0xe6, 0x4b, 0x55, 0xd3, 0x9a};
static uint8_t nothing[] = {0xcf, 0x83, 0xe1, 0x35, 0x7e, 0xef, 0xb8, 0xbd, 0xf1, 0x54, 0x28,
                            0x50, 0xd6, 0x6d, 0x80, 0x07, 0xd6, 0x20, 0xe4, 0x05, 0x0b, 0x57,
                            0x15, 0xdc, 0x83, 0xf4, 0xa9, 0x21, 0xd3, 0x6c, 0xe9, 0xce};

BEGIN
    CHECK(util_sha512h(BUF(out), TEXT("abc")), 32);
    CHECK_TRUE(SAME(out, abc, 32));
    CHECK(out[32], 0);
    CHECK(util_sha512h(PTR(out), 32, PTR(abc), 0), 32);
    CHECK_TRUE(SAME(out, nothing, 32));
    // Input and output may be the same memory.
    out[0] = 'a', out[1] = 'b', out[2] = 'c';
    CHECK(util_sha512h(PTR(out), 32, PTR(out), 3), 32);
    CHECK_TRUE(SAME(out, abc, 32));
    CHECK(util_sha512h(PTR(out), 31, TEXT("abc")), TOO_SMALL);
    CHECK(util_sha512h(PTR(out), 0, TEXT("abc")), TOO_SMALL);
    CHECK(util_sha512h(OUTSIDE, 32, TEXT("abc")), OUT_OF_BOUNDS);
    CHECK(util_sha512h(BUF(out), OUTSIDE, 3), OUT_OF_BOUNDS);
    CHECK(util_sha512h(BUF(out), PTR(out), MINUS), OUT_OF_BOUNDS);
    CHECK(util_sha512h(BUF(out), 1, MEMORY), OUT_OF_BOUNDS);
    CHECK(util_sha512h(BUF(out), 0, MEMORY), 32);
    CHECK(util_sha512h(MEMORY - 31, 32, TEXT("abc")), OUT_OF_BOUNDS);
END
