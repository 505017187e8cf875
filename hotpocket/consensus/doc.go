// Package consensus is HotPocket's agreement protocol as a pure state machine.
//
// A Core takes events (messages that the edge has checked the signatures of,
// the passing of time, finished executions) and returns actions: records to
// persist, messages to send, ledgers that closed, content to fetch. It owns no
// clock, network, disk, goroutine or randomness, so that a scenario or a seeded
// simulation replays exactly. Its caller is the node; the simulator is another.
//
// # The protocol
//
// n is the number of members of the UNL in force at a height, q the quorum:
// max(⌈threshold·n/100⌉, ⌊n/2⌋+1). A ledger closes in three rounds of messages.
//
// Propose: every member signs the last ledger's hash, the result of the last
// run, its clock, the digests of the input bundles it holds and of the list of
// users connected to it.
//
// Vote: in attempt 0 every member assembles the same candidate from the same
// proposals, those of the members that the last ledger names as expected, and
// votes for its hash. When one of them stays away for longer than a short
// adaptive grace, q proposals are enough. In later attempts a coordinator, a
// different one each time, sends the candidate together with the proposals it
// was assembled from. A proposal counts only where its list of users is held, so
// that nobody can keep others from voting by naming what cannot be had.
//
// Commit: q votes for one hash lock it, which is persisted, and are answered by
// a commit; q commits of one attempt close the ledger and are its certificate.
//
// Locks follow Tendermint's rules: a locked member votes for another value only
// when shown q votes for it from an attempt not before its lock. Two quorums
// share at least 2q−n members, so with at most 2q−n−1 Byzantine members no two
// ledgers close at one height, whatever the network does.
//
// # Attempts
//
// An attempt has a deadline from when q members take part in it; it doubles with
// every attempt that came to nothing. Most end sooner: when no candidate can get
// q votes any more, when a coordinator has not even proposed after a moment (the
// others then vote for nothing), or when some members have gone on and those who
// are left may be too few, as after a restart. Who has seen q votes for a
// candidate shows it to the next coordinators, so that one locked member does not
// spoil attempts until its own turn.
//
// # What has to be remembered
//
// Only the lock and the entry into an attempt after the first are promises. A
// member that restarts takes part again in an attempt that it cannot have been
// in before, so its votes need no record of their own. Sends leave only after
// every record before them is durable: see Action.
//
// # Runs
//
// A ledger that confirms the previous run, or declares that its result cannot
// be agreed on, starts the next one. While a run lasts longer than a round
// time, ledgers close as heartbeats: they carry no inputs and start no run.
package consensus
