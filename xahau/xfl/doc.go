// Package xfl is the decimal floating point of the Hook API: 16 significant
// digits, a decimal exponent, 64 bits (spec/ledger.md section 3). The hook
// machine calls it for the 16 float host functions, the codec for issued
// amounts, and the registry for the numbers in hook state, parameters and lease
// URIs. It is pure: nothing here allocates, waits or depends on the machine.
//
// # Layout
//
// Bit 63 is 0, bit 62 is 1 for positive values, bits 54 to 61 hold the exponent
// plus 97, the low 54 bits a mantissa of exactly 16 digits. Zero is 0. The value
// is mantissa × 10^exponent with exponents from -96 to 80.
//
// # Exactness
//
// Every function gives the bits and the error codes of the network, including
// what is surprising about them: products, quotients and sums are cut off, not
// rounded; and numbers within two units of the last place below a power of ten
// are pushed onto it or lose their last digit, because the network finds the
// order of a number with a binary logarithm (see order). Two functions, Log and
// Root, are binary floating point in the network too, and so as exact as the C
// library of a server is; ours rounds correctly, and a test compares it with the
// C library of the machine.
package xfl
