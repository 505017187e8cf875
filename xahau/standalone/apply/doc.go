// Package apply builds ledgers: from a closed ledger's state and a set of
// transactions it makes the next state, the metadata and the header, and it makes
// the first ledger of a network (Genesis).
//
// The server of the embedded ledger calls it and keeps what it makes in package
// chain. It is pure: the close time is handed in, it starts no goroutine and knows
// no disk. While a ledger is open, transactions are tried one by one as they come,
// so that who submits them learns the preliminary result; when it closes, all are
// applied anew in the canonical order, in passes, because one may need what
// another does.
package apply
