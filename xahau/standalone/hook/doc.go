// Package hook is the hook machine of the embedded ledger: it checks the code of a
// hook when it is installed, and runs hooks for the transactors with the 74 host
// functions of the Hook API (spec/ledger.md section 3). The transactors of package
// standalone call it; it reads the ledger through the small interface View and
// returns what a run did as values. It never writes to the ledger, knows no clock
// and no randomness, and never waits for anything.
//
// # Checking
//
// Check is a pure function of the code. It has the network's rules and names of
// errors (LogCode): sections, imports and their signatures, exports, one guard at
// the top of every loop, at most 16 nested blocks, a bound of the instructions that
// a run can take, which is also the price of a run in drops. Where the network
// would accept a module that could only fail or harm when it runs (a guard whose
// bound reads differently as a signed number, a huge memory, too many locals) Check
// refuses it.
//
// # Running
//
// Code is compiled once (Machine keeps the most recently used modules) and
// instantiated for each run. Before compiling, the code is rewritten to count its
// instructions as the network's interpreter does (meter.go), because that number
// is part of the metadata. A run ends by accept or rollback, by a guard, or by a
// trap. Three things keep a hostile module from harm: the guards bound its
// instructions, host functions charge their work against a budget that does not
// depend on the machine's speed, and memory, tables and locals are bounded when it
// is installed. Two runs with the same inputs give the same result bit by bit,
// on processors of one kind: code may compute with binary floating point, as on the
// network, and there only the bits of NaN are the processor's own.
//
// # Which network
//
// The semantics are those of the network's servers of 2025, with their corrections
// in force (for example arrays whose header takes two bytes in sto_subarray), but
// without functions and keylets of amendments that are still coming.
package hook
