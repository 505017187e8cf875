// The test gives signatures as parameters of the hook.
#include "hookapi.h"

static uint8_t ed[33], edsig[80], ec[33], ecsig[80], high[80], msg[] = "a message";

BEGIN
    CHECK(hook_param(BUF(ed), TEXT("ED")), 33);
    CHECK(hook_param(BUF(edsig), TEXT("EDSIG")), 64);
    CHECK(hook_param(BUF(ec), TEXT("EC")), 33);
    int64_t n = hook_param(BUF(ecsig), TEXT("ECSIG"));
    CHECK_TRUE(n > 60);
    int64_t m = hook_param(BUF(high), TEXT("ECHIGH"));
    CHECK_TRUE(m > 60);

    CHECK(util_verify(TEXT("a message"), PTR(edsig), 64, BUF(ed)), 1);
    CHECK(util_verify(TEXT("a massage"), PTR(edsig), 64, BUF(ed)), 0);
    CHECK(util_verify(TEXT("a message"), PTR(edsig), 63, BUF(ed)), 0);
    CHECK(util_verify(TEXT("a message"), PTR(edsig), 65, BUF(ed)), 0);
    CHECK(util_verify(TEXT("a message"), PTR(ecsig), n, BUF(ec)), 1);
    CHECK(util_verify(TEXT("a message"), PTR(high), m, BUF(ec)), 1);
    CHECK(util_verify(TEXT("a massage"), PTR(ecsig), n, BUF(ec)), 0);
    CHECK(util_verify(TEXT("a message"), PTR(ecsig), n - 1, BUF(ec)), 0);
    CHECK(util_verify(TEXT("a message"), PTR(ecsig), n, BUF(ed)), 0);

    CHECK(util_verify(TEXT("a message"), PTR(edsig), 64, PTR(ed), 32), INVALID_KEY);
    CHECK(util_verify(TEXT("a message"), PTR(edsig), 64, PTR(ed), 0), INVALID_KEY);
    CHECK(util_verify(PTR(msg), 0, PTR(edsig), 64, BUF(ed)), TOO_SMALL);
    CHECK(util_verify(TEXT("a message"), PTR(edsig), 29, BUF(ed)), TOO_SMALL);
    CHECK(util_verify(TEXT("a message"), PTR(edsig), 30, BUF(ed)), 0);
    ed[0] = 4;
    CHECK(util_verify(TEXT("a message"), PTR(edsig), 64, BUF(ed)), INVALID_KEY);
    // A key of the right form that is no point of the curve.
    FILL(ec, 33, 0xff);
    ec[0] = 2;
    CHECK(util_verify(TEXT("a message"), PTR(ecsig), n, BUF(ec)), 0);

    CHECK(util_verify(OUTSIDE, 9, PTR(edsig), 64, BUF(ed)), OUT_OF_BOUNDS);
    CHECK(util_verify(TEXT("a message"), OUTSIDE, 64, BUF(ed)), OUT_OF_BOUNDS);
    CHECK(util_verify(TEXT("a message"), PTR(edsig), 64, OUTSIDE, 33), OUT_OF_BOUNDS);
    CHECK(util_verify(PTR(msg), MINUS, PTR(edsig), 64, BUF(ed)), OUT_OF_BOUNDS);
END
