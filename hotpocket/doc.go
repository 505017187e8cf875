// Package hotpocket is one HotPocket node: it wires consensus, ledger, state,
// mesh, gateway and contract together and owns every goroutine between them.
//
// One goroutine, the loop, owns the consensus core and everything that the core
// decides about. Closed ledgers go from the loop to the executor, a second
// goroutine, which brings state, inputs and nonce table to where a ledger
// expects them, runs the contract and reports the result. Everything else
// (signatures, parsing, the network, the disk) happens in the goroutines of
// those who call in, and reaches the loop as a closure on a bounded channel.
//
// Run is called by the command line; nothing else uses the package. It knows no
// lease and no Xahau ledger.
package hotpocket
