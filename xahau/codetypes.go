package xahau

//go:generate go run generate.go

// TransactionType is the number of a type of transaction; Definitions know its
// name.
type TransactionType uint16

// EntryType is the number of a type of ledger entry; Definitions know its name.
type EntryType uint16
