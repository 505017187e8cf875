#include "hookapi.h"

static uint8_t one[] = {0xd4, 0x83, 0x8d, 0x7e, 0xa4, 0xc6, 0x80, 0x00}, native[] = {0x61, 0x40, 0, 0, 0, 0, 0, 0x04, 0xd2}, zero[8] = {0x80};

BEGIN
    CHECK(float_sto_set(BUF(one)), float_one());
    CHECK(float_sto_set(BUF(native)), float_set(0, 1234));
    CHECK(float_sto_set(BUF(zero)), 0);
    CHECK(float_sto_set(PTR(one), 7), NOT_AN_OBJECT);
    CHECK(float_sto_set(PTR(one), 0), NOT_AN_OBJECT);
    CHECK(float_sto_set(OUTSIDE, 7), NOT_AN_OBJECT);
    CHECK(float_sto_set(OUTSIDE, 8), OUT_OF_BOUNDS);
    CHECK(float_sto_set(PTR(one), MINUS), OUT_OF_BOUNDS);
END
