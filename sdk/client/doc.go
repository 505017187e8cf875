// Package client connects users to a HotPocket cluster: it submits inputs to the
// contract, tells what became of them, delivers the contract's outputs and asks
// nodes for their state and their ledgers.
//
// A Client keeps connections to some of the servers it is given and replaces
// those that break. Inputs go to one node, for all nodes of a cluster come to
// the same ledger; what concerns a node itself can be asked of each (Nodes).
//
// # Keys
//
// To the contract a user is a public key, so who wants to be the same user again
// has to keep the private one. Its method Hex gives 130 hex digits to put where
// only the user can read them, and key.ParsePrivate in evernode/hotpocket/key
// turns these into the key again; see the example of GenerateKey.
//
// # Trust
//
// Nodes mostly have self-signed TLS certificates, so by default these are not
// checked. A node proves itself with its own key instead. Without
// Options.TrustedKeys any node is believed. With them, a node that does not have
// one of the keys is left alone, and outputs are delivered only if at least
// Options.TrustedShare percent of the trusted keys have signed them; the list
// then follows the UNL as told by a trusted node. Statuses of inputs, read
// responses and ledgers carry no such proof.
//
// With the JSON protocol an output may have lost its quotes on the way, which
// the check makes up for by trying both readings. BSON leaves outputs as they
// are and is the better choice where trust matters.
//
// # Callbacks
//
// The functions in Options.Handler are called one after the other from one
// goroutine. They may use the client. While one of them lasts, events wait in
// a bounded queue; when that is full, connections are not read any further
// until there is room, and a node closes the connection of a user who does not
// read.
package client
