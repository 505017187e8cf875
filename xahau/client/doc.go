// Package client talks to servers of a Xahau network, over WebSocket or HTTP:
// requests that outlive a lost connection, streams that miss nothing over it,
// and submission that ends only when the outcome is certain. Hosts, tenants,
// operators' commands and tests use it; it knows no Evernode, keeps no keys and
// writes nothing to disk except through the Journal handed to it.
//
// # Connection
//
// A Client keeps one connection, to the first of its servers that works; when it
// is lost, goes stale or the server falls out of the network, the next server
// follows, with growing pauses once all have failed. Requests wait for a
// connection as long as their context allows, and are sent again if it breaks
// before the answer.
//
// # Streams
//
// Ledgers and Transactions are read with Next, at the reader's pace and in the
// ledger's order. What a server pushes only rings: the content is asked for by
// ledger number (spec/ledger.md section 4), so it does not matter which pushes
// got lost, came twice or in another order.
//
// # Submission
//
// A transaction's outcome is known when a validated ledger contains it, or when
// the ledger that it names as its last has passed without it. Submit waits for
// one of the two, across lost connections, and with a Journal across restarts of
// the program.
package client
