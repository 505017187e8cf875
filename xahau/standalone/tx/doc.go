// Package tx applies transactions: the checks that all have in common, fees,
// sequence numbers and tickets, and a transactor for each type of transaction,
// with the result codes and in the order of checks of the network's servers
// (spec/ledger.md section 2).
//
// The open ledger (package apply) calls Engine. Everything is values in, values
// out: a transaction and a view of the ledger in, a result code and changes of the
// view out; no clock, no network, no disk. Types of transactions are a Table that
// is handed in, and so are Hooks, so that other packages can add theirs.
//
// # Which network
//
// The rules are those of the public network with the amendments of 2025, with one
// exception: AccountDelete, which is not in force there, is here
// (account_delete.go says how). Payments that change the currency, and so paths,
// find no liquidity: they end with tecPATH_DRY.
package tx
