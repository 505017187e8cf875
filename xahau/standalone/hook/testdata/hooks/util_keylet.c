// Every type of keylet; the test compares what is left in the state with keylets
// of its own.
#include "hookapi.h"

static uint8_t own[20] = ACCOUNT(OWN), sender[20] = ACCOUNT(SENDER), h[32] = HASH(0x77), ns[32] = HASH(0x5a), eur[20], dir[34], out[40];

#define KEEP(name, ...)                                          \
    do                                                           \
    {                                                            \
        CHECK(util_keylet(BUF(out), __VA_ARGS__), 34);           \
        CHECK(out[34], 0);                                       \
        CHECK(state_set(PTR(out), 34, TEXT(name)), 34);          \
    } while (0)

BEGIN
    KEEP("hook", 1, BUF(own), 0, 0, 0, 0);
    KEEP("state", 2, BUF(own), BUF(h), BUF(ns));
    KEEP("account", 3, BUF(own), 0, 0, 0, 0);
    KEEP("amendments", 4, 0, 0, 0, 0, 0, 0);
    KEEP("child", 5, BUF(h), 0, 0, 0, 0);
    KEEP("skip", 6, 0, 0, 0, 0, 0, 0);
    KEEP("skip at", 6, 1 << 20, 1, 0, 0, 0, 0);
    KEEP("fees", 7, 0, 0, 0, 0, 0, 0);
    KEEP("negative unl", 8, 0, 0, 0, 0, 0, 0);
    KEEP("line", 9, BUF(own), BUF(sender), TEXT("EUR"));
    eur[12] = 'E', eur[13] = 'U', eur[14] = 'R';
    KEEP("line the other way", 9, BUF(sender), BUF(own), BUF(eur));
    KEEP("offer", 10, BUF(own), 5, 0, 0, 0);
    KEEP("offer by nonce", 10, BUF(own), BUF(h), 0, 0);
    dir[1] = 0x64;
    KEEP("quality", 11, BUF(dir), 0x01020304, 0x05060708, 0, 0);
    KEEP("emitted dir", 12, 0, 0, 0, 0, 0, 0);
    KEEP("signers", 14, BUF(own), 0, 0, 0, 0);
    KEEP("check", 15, BUF(own), 5, 0, 0, 0);
    KEEP("deposit preauth", 16, BUF(own), BUF(sender), 0, 0);
    KEEP("unchecked", 17, BUF(h), 0, 0, 0, 0);
    KEEP("owner dir", 18, BUF(own), 0, 0, 0, 0);
    KEEP("page", 19, BUF(h), 1, 2, 0, 0);
    KEEP("page 0", 19, BUF(h), 0, 0, 0, 0);
    KEEP("escrow", 20, BUF(own), 5, 0, 0, 0);
    KEEP("paychan", 21, BUF(own), BUF(sender), 5, 0);
    KEEP("paychan by nonce", 21, BUF(own), BUF(sender), BUF(h));
    KEEP("emitted txn", 22, BUF(h), 0, 0, 0, 0);
    KEEP("nft offer", 23, BUF(own), 5, 0, 0, 0);
    KEEP("definition", 24, BUF(h), 0, 0, 0, 0);
    KEEP("state dir", 25, BUF(own), BUF(ns), 0, 0);

    CHECK(util_keylet(OUTSIDE, 34, 3, BUF(own), 0, 0, 0, 0), OUT_OF_BOUNDS);
    CHECK(util_keylet(PTR(out), 33, 3, BUF(own), 0, 0, 0, 0), TOO_SMALL);
    CHECK(util_keylet(PTR(out), 0, 3, BUF(own), 0, 0, 0, 0), TOO_SMALL);
    CHECK(util_keylet(PTR(out), MINUS, 3, BUF(own), 0, 0, 0, 0), OUT_OF_BOUNDS);
    CHECK(util_keylet(BUF(out), 0, 0, 0, 0, 0, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 13, BUF(own), 5, 0, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 26, BUF(own), 5, 0, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), MINUS, 0, 0, 0, 0, 0, 0), INVALID_ARGUMENT);
    // Too few arguments, too many, of the wrong length, outside of memory.
    CHECK(util_keylet(BUF(out), 3, 0, 20, 0, 0, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 3, PTR(own), 0, 0, 0, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 3, BUF(own), 1, 0, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 3, PTR(own), 19, 0, 0, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 3, OUTSIDE, 20, 0, 0, 0, 0), OUT_OF_BOUNDS);
    CHECK(util_keylet(BUF(out), 2, BUF(own), BUF(h), PTR(ns), 31), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 2, BUF(own), BUF(h), 0, 32), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 2, BUF(own), OUTSIDE, 32, BUF(ns)), OUT_OF_BOUNDS);
    CHECK(util_keylet(BUF(out), 4, 1, 0, 0, 0, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 6, 5, 2, 0, 0, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 9, BUF(own), BUF(sender), TEXT("EURO")), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 9, BUF(own), BUF(sender), TEXT("E R")), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 9, BUF(own), BUF(sender), OUTSIDE, 3), OUT_OF_BOUNDS);
    CHECK(util_keylet(BUF(out), 10, BUF(own), PTR(h), 31, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 10, BUF(own), OUTSIDE, 32, 0, 0), OUT_OF_BOUNDS);
    CHECK(util_keylet(BUF(out), 11, PTR(dir), 33, 0, 0, 0, 0), INVALID_ARGUMENT);
    dir[1] = 0x61;
    CHECK(util_keylet(BUF(out), 11, BUF(dir), 0, 0, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 16, BUF(own), 0, 20, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 16, BUF(own), PTR(sender), 21, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 19, PTR(h), 31, 0, 1, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 21, BUF(own), BUF(sender), 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 21, BUF(own), BUF(sender), PTR(h), 20), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 24, PTR(h), 20, 0, 0, 0, 0), INVALID_ARGUMENT);
    CHECK(util_keylet(BUF(out), 25, BUF(own), PTR(ns), 20, 0, 0), INVALID_ARGUMENT);
END
