// A serialized object for the tests of sto functions, by offset:
//  0 TransactionType, 3 Flags, 8 Sequence, 13 Fee, 22 Account, 44 Memos with two.
static uint8_t object[] = {
    0x12, 0, 0, 0x22, 0x80, 0, 0, 0, 0x24, 0, 0, 0, 7, 0x68, 0x40, 0, 0, 0, 0, 0, 0, 12,
    0x81, 20, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    0xf9, 0xea, 0x7d, 5, 'h', 'e', 'l', 'l', 'o', 0xe1, 0xea, 0x7d, 1, 0, 0xe1, 0xf1};
static uint8_t scratch[200];

#define AT(offset, length) (((int64_t)(offset) << 32) + (length))
