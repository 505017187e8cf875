// Package sim runs many consensus cores in one goroutine on a virtual clock,
// network and disk, all driven by one seed, and checks after every event what
// must never be wrong. A seed replays exactly, so a failure found among
// thousands of seeds can be read as a story.
//
// A World is the simulated cluster. Plan draws a cluster and its misfortunes
// from a seed and Run lives through them: first chaos, then a network that
// heals, after which the honest nodes must make progress within a bounded
// virtual time. Play lives through a script instead, in which every fault is
// written down; see Script.
//
// Tests call it; a command may. It opens no file and no connection and knows
// nothing of a node but its consensus core: contracts, inputs and state are
// digests made up here.
package sim
