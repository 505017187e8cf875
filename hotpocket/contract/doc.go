// Package contract runs the contract: one operating-system process for every
// ledger (a consensus run) and one for every read request, joined to the node by
// the descriptors and the JSON of spec/hotpocket.md section 2, so that any
// program written for the original runs unchanged.
//
// The node's wiring calls it: Runner.Start begins a run and returns an
// Execution, to which NPL and control messages can be delivered while it lasts,
// and whose Result carries what the contract said to its users. All traffic of
// one run is moved by one goroutine around one epoll descriptor, whatever the
// number of users.
//
// It never decides what is run or when, never looks into inputs and outputs,
// never touches the state folder except for post_exec.sh, and knows no ledger,
// peer or user beyond the values in Run. Nothing that a contract does (crash,
// hang, flood, close its descriptors, ignore what it is sent, leave processes
// behind) can block or fail the node: it ends up in the Result, which the caller
// reports; the package itself logs only what has no place there.
package contract
