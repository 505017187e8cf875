#include "hookapi.h"

static uint8_t out[60], issuer[20] = ACCOUNT(FOREIGN), eur[20];
static uint8_t native[] = {0x40, 0, 0, 0, 0, 0, 0x04, 0xd2};
static uint8_t one[] = {0xd4, 0x83, 0x8d, 0x7e, 0xa4, 0xc6, 0x80, 0x00}, zero[] = {0x80, 0, 0, 0, 0, 0, 0, 0};

BEGIN
    CHECK(float_sto(BUF(out), TEXT("EUR"), BUF(issuer), float_one(), sfAmount), 49);
    CHECK_TRUE(out[0] == 0x61 && SAME(out + 1, one, 8) && out[21] == 'E' && SAME(out + 29, issuer, 20));
    eur[0] = 1;
    CHECK(float_sto(BUF(out), BUF(eur), BUF(issuer), float_one(), 0x60010U), 50);
    CHECK_TRUE(out[0] == 0x60 && out[1] == 0x10 && out[10] == 1);
    CHECK(float_sto(BUF(out), 0, 0, 0, 0, float_set(0, 1234), 0), 8);
    CHECK_TRUE(SAME(out, native, 8));
    CHECK(float_sto(BUF(out), 0, 0, 0, 0, float_one(), 0xffffffffU), 8);
    CHECK_TRUE(SAME(out, one, 8));
    CHECK(float_sto(BUF(out), 0, 0, 0, 0, 0, 0xffffffffU), 8);
    CHECK_TRUE(SAME(out, zero, 8));
    CHECK(float_sto(PTR(out), 48, TEXT("EUR"), BUF(issuer), float_one(), sfAmount), TOO_SMALL);
    CHECK(float_sto(PTR(out), 7, 0, 0, 0, 0, float_one(), 0), TOO_SMALL);
    CHECK(float_sto(BUF(out), 0, 0, 0, 0, float_set(20, 1), 0), XFL_OVERFLOW);
    CHECK(float_sto(BUF(out), 0, 0, 0, 0, float_one(), sfAmount), INVALID_ARGUMENT);
    CHECK(float_sto(BUF(out), TEXT("EUR"), BUF(issuer), float_one(), 0), INVALID_ARGUMENT);
    CHECK(float_sto(BUF(out), TEXT("EUR"), BUF(issuer), float_one(), 0xffffffffU), INVALID_ARGUMENT);
    CHECK(float_sto(BUF(out), TEXT("EUR"), 0, 0, float_one(), sfAmount), INVALID_ARGUMENT);
    CHECK(float_sto(BUF(out), 0, 0, BUF(issuer), float_one(), sfAmount), INVALID_ARGUMENT);
    CHECK(float_sto(BUF(out), TEXT("EURO"), BUF(issuer), float_one(), sfAmount), INVALID_ARGUMENT);
    CHECK(float_sto(BUF(out), TEXT("E R"), BUF(issuer), float_one(), sfAmount), INVALID_ARGUMENT);
    CHECK(float_sto(BUF(out), TEXT("EUR"), PTR(issuer), 19, float_one(), sfAmount), INVALID_ARGUMENT);
    CHECK(float_sto(BUF(out), 5, 0, 0, 0, float_one(), 0), INVALID_ARGUMENT);
    CHECK(float_sto(BUF(out), 0, 0, 5, 0, float_one(), 0), INVALID_ARGUMENT);
    CHECK(float_sto(BUF(out), 0, 0, 0, 0, -1, 0), INVALID_FLOAT);
    CHECK(float_sto(OUTSIDE, 8, 0, 0, 0, 0, float_one(), 0), OUT_OF_BOUNDS);
    CHECK(float_sto(PTR(out), MINUS, 0, 0, 0, 0, float_one(), 0), OUT_OF_BOUNDS);
    CHECK(float_sto(BUF(out), OUTSIDE, 3, BUF(issuer), float_one(), sfAmount), OUT_OF_BOUNDS);
    CHECK(float_sto(BUF(out), TEXT("EUR"), OUTSIDE, 20, float_one(), sfAmount), OUT_OF_BOUNDS);
END
