// Package remote is a statefs.State in another process: the state file system
// runs outside the node's container, under another user if that is wanted, and
// the node drives it over a Unix socket (whitepaper 3.5 to 3.8).
//
// On the side of the state, Serve answers one node at a time on a listening
// socket and ServeConn a single one on an inherited descriptor. On the node's
// side, Open returns a State that starts or dials that process through a
// Connector, starts it again when it dies, and heals itself: what can be asked
// again is asked again, and what a dead process took with it (an open run, a
// view, a staging) fails with ErrGone. The node's executor, the synchronisation
// and the peers use it like any other State.
//
// The package knows nothing of how a state is kept; it carries calls. It never
// starts the contract and never decides what is agreed. Everything on the socket
// is written with package wire: big-endian, lengths in front, bounded.
package remote
