// Package mesh connects a node to its peers: TLS 1.3 with the Ed25519 node key
// as identity on both sides, an address book that finds peers and keeps
// redialing them, broadcast and flooding of short urgent messages, requests and
// answers of bulk data on a second connection, and the limits of the mesh
// section of hp.cfg (spec/hotpocket.md sections 3.3, 4.6 and 4.7).
//
// The node owns one Mesh, hands it a Handler and calls Broadcast, Flood, Send
// and Request. The mesh carries messages and knows none of them: a Kind is a
// number that the caller defines, and a payload is bytes. It never blocks a
// caller that sends, never trusts what a peer says about another, never writes
// to disk, and never decides which messages are valid: the Handler's Verdict
// does that, and a node only passes on what its Handler accepted, so whoever
// delivers a bad message is to blame for it.
//
// # Between two nodes
//
// The urgent connection is the session: when it ends, the peer is down. If two
// nodes dial each other at once, the connection dialed by the smaller key stays.
// The bulk connection is opened with the first request in either direction,
// always by the node that dialed the session (the only one known to be able to).
// Every frame is a 4-byte big-endian length of what follows, a type byte, and
// a body; after TLS the dialer says hello and the other answers hello or a
// reason to part.
//
// # Flooding
//
// Nodes tell their peers which keys they are directly connected to. A node that
// receives a flooded message of author A passes it on to those of its peers
// that are not connected to A, so that nothing is passed on in a full mesh and
// everything arrives in a sparse one. Every node remembers the hashes of what
// it has seen. The author named in a frame and the lists of neighbours are
// claims; who lies about them causes spare copies, or misses messages itself,
// and nothing else, because the hash covers the claimed author and scope.
package mesh
