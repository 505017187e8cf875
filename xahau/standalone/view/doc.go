// Package view is how transactions see and change the ledger: the one narrow seam
// between the transactors and the state.
//
// A closed ledger's state is a Reader (Closed). Changes are collected in a Sandbox,
// which stands on a Reader or on another Sandbox, is applied to what it stands on
// or thrown away, and tells afterwards what was changed; from that comes a
// transaction's metadata (meta.go). Besides, the package has what all transactors
// do to the ledger: directories, owner counts and reserves, balances and trust
// lines.
//
// Transactors (package tx) and the open ledger (package apply) call it. It knows no
// transaction type, clock or file. Entries that it gives out are shared: who wants
// to change one takes a copy (Edit) and gives it back with Update.
//
// # Errors
//
// Reads of the ledger fail only if the store fails. A view remembers the first
// such failure and reads nothing from then on (Err); the open ledger looks at it
// once, after each transaction, and throws the transaction away. Transactors have
// nothing to handle. What is wrong with a transaction's own changes, such as a
// balance below zero, is remembered by its isolated sandbox alone.
package view
