// Package xahau is what any program that talks to the Xahau ledger needs:
// addresses and keys, amounts, the binary and JSON forms of transactions and
// ledger entries, their hashes and signatures. It knows no network, no clock and
// no Evernode; package xahau/client brings transactions to a server,
// xahau/standalone is a server, xahau/keylet finds ledger entries, xahau/xfl
// computes as hooks do.
//
// # Objects
//
// A transaction, a ledger entry and a transaction's metadata are all an [Object]:
// fields with values, in canonical order. Fields are named by code (package
// xahau/field), values are the types of this package. Functions such as [Payment]
// make the usual transactions.
//
//	tx := xahau.Payment(from, to, xahau.Drops(1))
//	tx.AddHookParameter(name, value)
//	blob, id, err := defs.Sign(tx, keys)
//
// # Definitions
//
// Which fields, types and names exist is data: the [Definitions]. Those of the
// network are embedded; a server's own, the answer to server_definitions, can
// take their place at run time ([ParseDefinitions]).
//
// What comes from outside is checked for form here and gets an error that names
// the field; whether a transaction makes sense the ledger decides.
package xahau
