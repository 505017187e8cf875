// The Hook API for our test hooks: the 74 functions, the error codes, and what a
// test needs. A test hook checks one function and accepts; the first check that
// fails rolls back with its line and text.
#pragma once

typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;

#define API __attribute__((import_module("env")))

API int32_t _g(uint32_t id, uint32_t maxiter);
API int64_t accept(uint32_t ptr, uint32_t len, int64_t code);
API int64_t rollback(uint32_t ptr, uint32_t len, int64_t code);
API int64_t util_raddr(uint32_t wptr, uint32_t wlen, uint32_t rptr, uint32_t rlen);
API int64_t util_accid(uint32_t wptr, uint32_t wlen, uint32_t rptr, uint32_t rlen);
API int64_t util_verify(uint32_t dptr, uint32_t dlen, uint32_t sptr, uint32_t slen, uint32_t kptr, uint32_t klen);
API int64_t util_sha512h(uint32_t wptr, uint32_t wlen, uint32_t rptr, uint32_t rlen);
API int64_t util_keylet(uint32_t wptr, uint32_t wlen, uint32_t type, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f);
API int64_t sto_validate(uint32_t ptr, uint32_t len);
API int64_t sto_subfield(uint32_t ptr, uint32_t len, uint32_t field);
API int64_t sto_subarray(uint32_t ptr, uint32_t len, uint32_t index);
API int64_t sto_emplace(uint32_t wptr, uint32_t wlen, uint32_t sptr, uint32_t slen, uint32_t fptr, uint32_t flen, uint32_t field);
API int64_t sto_erase(uint32_t wptr, uint32_t wlen, uint32_t rptr, uint32_t rlen, uint32_t field);
API int64_t etxn_burden(void);
API int64_t etxn_details(uint32_t ptr, uint32_t len);
API int64_t etxn_fee_base(uint32_t ptr, uint32_t len);
API int64_t etxn_reserve(uint32_t count);
API int64_t etxn_generation(void);
API int64_t etxn_nonce(uint32_t ptr, uint32_t len);
API int64_t emit(uint32_t wptr, uint32_t wlen, uint32_t rptr, uint32_t rlen);
API int64_t float_set(int32_t exponent, int64_t mantissa);
API int64_t float_multiply(int64_t a, int64_t b);
API int64_t float_mulratio(int64_t a, uint32_t up, uint32_t numerator, uint32_t denominator);
API int64_t float_negate(int64_t a);
API int64_t float_compare(int64_t a, int64_t b, uint32_t mode);
API int64_t float_sum(int64_t a, int64_t b);
API int64_t float_sto(uint32_t wptr, uint32_t wlen, uint32_t cptr, uint32_t clen, uint32_t iptr, uint32_t ilen, int64_t a, uint32_t field);
API int64_t float_sto_set(uint32_t ptr, uint32_t len);
API int64_t float_invert(int64_t a);
API int64_t float_divide(int64_t a, int64_t b);
API int64_t float_one(void);
API int64_t float_mantissa(int64_t a);
API int64_t float_sign(int64_t a);
API int64_t float_int(int64_t a, uint32_t places, uint32_t absolute);
API int64_t float_log(int64_t a);
API int64_t float_root(int64_t a, uint32_t n);
API int64_t fee_base(void);
API int64_t ledger_seq(void);
API int64_t ledger_last_time(void);
API int64_t ledger_last_hash(uint32_t ptr, uint32_t len);
API int64_t ledger_nonce(uint32_t ptr, uint32_t len);
API int64_t ledger_keylet(uint32_t wptr, uint32_t wlen, uint32_t lptr, uint32_t llen, uint32_t hptr, uint32_t hlen);
API int64_t hook_account(uint32_t ptr, uint32_t len);
API int64_t hook_hash(uint32_t ptr, uint32_t len, int32_t n);
API int64_t hook_param_set(uint32_t rptr, uint32_t rlen, uint32_t kptr, uint32_t klen, uint32_t hptr, uint32_t hlen);
API int64_t hook_param(uint32_t wptr, uint32_t wlen, uint32_t rptr, uint32_t rlen);
API int64_t hook_again(void);
API int64_t hook_skip(uint32_t ptr, uint32_t len, uint32_t flags);
API int64_t hook_pos(void);
API int64_t slot(uint32_t ptr, uint32_t len, uint32_t n);
API int64_t slot_clear(uint32_t n);
API int64_t slot_count(uint32_t n);
API int64_t slot_set(uint32_t ptr, uint32_t len, uint32_t n);
API int64_t slot_size(uint32_t n);
API int64_t slot_subarray(uint32_t parent, uint32_t index, uint32_t n);
API int64_t slot_subfield(uint32_t parent, uint32_t field, uint32_t n);
API int64_t slot_type(uint32_t n, uint32_t flags);
API int64_t slot_float(uint32_t n);
API int64_t state_set(uint32_t rptr, uint32_t rlen, uint32_t kptr, uint32_t klen);
API int64_t state_foreign_set(uint32_t rptr, uint32_t rlen, uint32_t kptr, uint32_t klen, uint32_t nptr, uint32_t nlen, uint32_t aptr, uint32_t alen);
API int64_t state(uint32_t wptr, uint32_t wlen, uint32_t kptr, uint32_t klen);
API int64_t state_foreign(uint32_t wptr, uint32_t wlen, uint32_t kptr, uint32_t klen, uint32_t nptr, uint32_t nlen, uint32_t aptr, uint32_t alen);
API int64_t trace(uint32_t mptr, uint32_t mlen, uint32_t dptr, uint32_t dlen, uint32_t hex);
API int64_t trace_num(uint32_t ptr, uint32_t len, int64_t number);
API int64_t trace_float(uint32_t ptr, uint32_t len, int64_t a);
API int64_t otxn_burden(void);
API int64_t otxn_field(uint32_t ptr, uint32_t len, uint32_t field);
API int64_t otxn_generation(void);
API int64_t otxn_id(uint32_t ptr, uint32_t len, uint32_t flags);
API int64_t otxn_type(void);
API int64_t otxn_slot(uint32_t n);
API int64_t otxn_param(uint32_t wptr, uint32_t wlen, uint32_t rptr, uint32_t rlen);
API int64_t meta_slot(uint32_t n);
API int64_t xpop_slot(uint32_t tx, uint32_t meta);

#define OUT_OF_BOUNDS -1
#define INTERNAL_ERROR -2
#define TOO_BIG -3
#define TOO_SMALL -4
#define DOESNT_EXIST -5
#define NO_FREE_SLOTS -6
#define INVALID_ARGUMENT -7
#define ALREADY_SET -8
#define PREREQUISITE_NOT_MET -9
#define FEE_TOO_LARGE -10
#define EMISSION_FAILURE -11
#define TOO_MANY_NONCES -12
#define TOO_MANY_EMITTED_TXN -13
#define INVALID_FIELD -17
#define PARSE_ERROR -18
#define NO_SUCH_KEYLET -21
#define NOT_AN_ARRAY -22
#define NOT_AN_OBJECT -23
#define INVALID_FLOAT -10024
#define DIVISION_BY_ZERO -25
#define XFL_OVERFLOW -30
#define NOT_AN_AMOUNT -32
#define CANT_RETURN_NEGATIVE -33
#define NOT_AUTHORIZED -34
#define PREVIOUS_FAILURE_PREVENTS_RETRY -35
#define TOO_MANY_PARAMS -36
#define INVALID_TXN -37
#define RESERVE_INSUFFICIENT -38
#define COMPLEX_NOT_SUPPORTED -39
#define DOES_NOT_MATCH -40
#define INVALID_KEY -41
#define MEM_OVERLAP -43
#define TOO_MANY_STATE_MODIFICATIONS -44

// Memory of a test hook is one page; OUTSIDE is a pointer beyond it, and MINUS a
// length below zero.
#define MEMORY 65536
#define OUTSIDE 0x7fffffffU
#define MINUS ((uint32_t)-1)

#define PTR(p) ((uint32_t)(p))
#define BUF(b) PTR(b), sizeof(b)
#define TEXT(s) PTR(s), (sizeof(s) - 1)

#define FAIL(text) rollback(TEXT(text), __LINE__)
#define CHECK(got, want)                    \
    do                                      \
    {                                       \
        if ((int64_t)(got) != (int64_t)(want)) \
            FAIL(#got " == " #want);        \
    } while (0)
#define CHECK_TRUE(what)  \
    do                    \
    {                     \
        if (!(what))      \
            FAIL(#what);  \
    } while (0)

// A loop that runs at most n times in all. Every loop must begin with a guard.
#define GUARD(n) _g(1000 + __COUNTER__, (n) + 1)
#define FOR(i, n) for (int i = 0; GUARD(n), i < (n); ++i)

// Whether n bytes at a and b are the same.
#define SAME(a, b, n)                                      \
    ({                                                     \
        int same_ = 1;                                     \
        for (uint32_t i_ = 0; GUARD(n), i_ < (n); ++i_) \
            if (((volatile uint8_t *)(a))[i_] != ((volatile uint8_t *)(b))[i_]) \
                same_ = 0;                                 \
        same_;                                             \
    })

#define FILL(a, n, value)                                \
    for (uint32_t i_ = 0; GUARD(n), i_ < (n); ++i_) \
        ((volatile uint8_t *)(a))[i_] = (value)

// Both forms of fields ids that functions take.
#define sfTransactionType 0x10002U
#define sfLedgerEntryType 0x10001U
#define sfFlags 0x20002U
#define sfSequence 0x20004U
#define sfOwnerCount 0x2000dU
#define sfHookStateKey 0x5001eU
#define sfAmount 0x60001U
#define sfBalance 0x60002U
#define sfFee 0x60008U
#define sfSigningPubKey 0x70003U
#define sfTxnSignature 0x70004U
#define sfMemoData 0x7000dU
#define sfURI 0x70005U
#define sfAccount 0x80001U
#define sfDestination 0x80003U
#define sfMemo 0xe000aU
#define sfMemos 0xf0009U
#define sfHookParameters 0xf0013U
#define sfTransactionResult 0x100003U
#define sfAffectedNodes 0xf0008U

// The tests' accounts: the hook's, the sender's, one that holds state, and one that
// does not exist.
#define ACCOUNT(x) {x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}
#define HASH(x) {x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}
#define OWN 0x11
#define SENDER 0x22
#define FOREIGN 0x33
#define NOBODY 0x44

#define BEGIN                         \
    int64_t hook(uint32_t reserved)   \
    {                                 \
        _g(1, 1);
#define END                           \
        accept(TEXT("ok"), 0);        \
        return 0;                     \
    }
