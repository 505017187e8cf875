// Package gateway is the users' side of a node: a WebSocket server over TLS
// that speaks the user protocol of spec/hotpocket.md section 1, so that
// existing client libraries work unchanged.
//
// It proves node and user to each other, takes inputs, read requests and
// queries and hands them to the Node, and delivers statuses, outputs and events
// to whoever is connected. It is called by the node's wiring (Serve, Accepted,
// Rejected, Outputs, Publish, Users) and calls back through the Node interface.
// It never decides whether an input is acceptable, verifies no input's
// signature, touches no disk but for the TLS certificate, and keeps nothing
// beyond a connection's life: outputs for a user who is not connected are not
// stored here.
//
// # Where it departs from the original
//
// The same key may be connected several times; each connection gets every
// status and output. There is no limit of 64 users: Limits.MaxConnections is
// the operator's, and hard caps guard the process. When the node closes a
// connection it sends a close frame with the reason.
//
// A host is never banned. The original bans an IP address for ten minutes after
// six violations, which shuts out everybody behind one NAT and every health
// check. Here a violation costs the connection that committed it, and failed
// handshakes use up an allowance of their host that refills with time. A host
// without allowance may only have a few handshakes in progress at a time; its
// verified users keep their connections, and anybody who completes a handshake
// gets in like before.
//
// Reading a connection stops while too much that came from it waits, be it
// read requests or bytes that the user does not take: requests are slowed
// down, not lost. Read requests of all users share a bounded queue which serves
// connections in turn; the protocol knows no reply for "too busy", and a status
// or an empty answer would be taken for the contract's own. An input that the
// node has no room for is rejected with round_inputs_overflow, the only reason
// of the protocol that tells a client to slow down.
package gateway
