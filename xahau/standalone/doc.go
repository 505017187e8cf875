// Package standalone is a whole ledger network of one server: it keeps a ledger
// open, takes transactions into it, closes it by the clock or by hand, and keeps
// what was closed. It joins the packages below it: apply builds ledgers, tx and
// hook say what transactions and hooks do, chain keeps the ledgers.
//
// Package api shows it to clients; tests use it directly. It opens no port, reads
// no clock but the one handed in, and counts a ledger as validated only when it is
// durable (spec/ledger.md sections 1 and 4).
package standalone
