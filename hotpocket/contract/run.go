package contract

import (
	"os"
	"time"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// MaxPacket is the largest NPL message and the largest control message, in
// bytes (spec/hotpocket.md sections 2.5 and 2.6).
const MaxPacket = 128 << 10

// Mode says what a run is for. Its text is the "mode" of the stdin JSON
// (spec/hotpocket.md section 9).
type Mode string

// The modes. A consensus run may write the state and talk to other nodes; a
// read request sees one user with one input and a read-only state.
const (
	Consensus   Mode = "consensus"
	ReadRequest Mode = "read_req"
)

// Program is what is executed and under which limits: the parts of the contract
// section of hp.cfg and patch.cfg that concern a run.
type Program struct {
	// BinPath is handed to execve: no search in PATH, relative to the run's Dir.
	BinPath string
	// BinArgs is split on single spaces, empty pieces are dropped, there is no
	// quoting.
	BinArgs string
	// Environment is the whole environment of the contract.
	Environment map[string]string
	// RunAs is the user the contract runs as; nil means the node's own.
	RunAs *Credential
	// Limits of one run.
	Limits Limits
}

// Credential is a numeric user and group.
type Credential struct{ UID, GID uint32 }

// Limits bounds one run. A zero field is no limit, except where it says
// otherwise (spec/hotpocket.md section 2.7).
type Limits struct {
	// UserOutputBytes is how many bytes, with the 4-byte headers, a run may send
	// to one user. What exceeds it is thrown away, the message in which it
	// happens is cut short.
	UserOutputBytes uint64
	// NPLOutputBytes is how many bytes a run may send to the other nodes. The
	// message that would exceed it and all that follow are thrown away.
	NPLOutputBytes uint64
	// CPUSeconds is RLIMIT_CPU, MemoryBytes RLIMIT_DATA, OpenFiles RLIMIT_NOFILE,
	// soft and hard alike.
	CPUSeconds, MemoryBytes, OpenFiles uint64
	// ExecTimeout is the wall-clock time after which the run is killed.
	ExecTimeout time.Duration
	// PostExecTimeout is the same for post_exec.sh. Zero is DefaultPostExecTimeout.
	PostExecTimeout time.Duration
	// TotalOutputBytes bounds the memory that all outputs of a run may take
	// together. A run that sends more loses all of its outputs, on every node
	// alike. Zero is DefaultTotalOutputBytes.
	TotalOutputBytes uint64
}

// Defaults of Limits.
const (
	DefaultTotalOutputBytes = 256 << 20
	DefaultPostExecTimeout  = 10 * time.Minute
)

func (l *Limits) totalOutput() uint64 {
	if l.TotalOutputBytes == 0 {
		return DefaultTotalOutputBytes
	}
	return l.TotalOutputBytes
}

// Run is the input of one execution.
type Run struct {
	Mode Mode
	// Dir is the state folder, the contract's working directory.
	Dir string
	// HPVersion, ContractID and NodeKey are told to the contract as they are.
	HPVersion  string
	ContractID string
	NodeKey    key.Private
	// LedgerSeq, LedgerHash and Timestamp (milliseconds) are of the ledger just
	// closed. A read request has none of them.
	LedgerSeq  uint64
	LedgerHash digest.Hash
	Timestamp  uint64
	// Users are all users connected anywhere in the cluster, in the order in which
	// the contract shall see them; a read request has exactly one.
	Users []UserIO
	// UNL are the members in force.
	UNL []UNLMember
}

// UserIO is a user and the inputs of this run, in order.
type UserIO struct {
	Key    key.Public
	Inputs [][]byte
}

// UNLMember is a member of the UNL. ActiveOn is when its last proposal was
// received, in Unix milliseconds, 0 if never.
type UNLMember struct {
	Key      key.Public
	ActiveOn uint64
}

// Hooks are called by the goroutine of the run while it lasts, one at a time.
// They must not block: the contract's other traffic waits for them. Any of them
// may be nil.
type Hooks struct {
	// NPL takes a packet for all other nodes that execute the same ledger, whose
	// nodes hand it to Execution.DeliverNPL. It is at most MaxNPLPacket bytes and
	// belongs to the callee. When it is nil the contract's NPL messages are thrown
	// away and not echoed, as for a node outside the UNL.
	NPL func(packet []byte)
	// Peers takes a change of the known peers.
	Peers func(PeerChange)
}

// Result is what came of a run.
type Result struct {
	// Outputs are the users that were sent something, in the order of Run.Users.
	Outputs []UserOutput
	// OutputsLost tells that the run sent more than Limits.TotalOutputBytes, for
	// which reason Outputs is empty.
	OutputsLost bool
	// StartError is why the program could not be executed at all; nil if it ran.
	// Such a run counts as one without outputs.
	StartError error
	// Exit is how the process ended.
	Exit Exit
	// TimedOut and Canceled tell that the node killed it.
	TimedOut, Canceled bool
	// PostExec is what came of post_exec.sh, which is run after a consensus run that
	// ended normally; nil if there was none.
	PostExec *PostExec
	// Elapsed is from the start to the end of the process, CPU the time it used.
	Elapsed, CPU time.Duration
	// MaxRSS is the largest resident memory of the process in bytes.
	MaxRSS uint64
}

// UserOutput is what a run sent to one user, in order.
type UserOutput struct {
	Key      key.Public
	Messages [][]byte
}

// Exit is how a process ended: by itself with Code, or by Signal.
type Exit struct {
	Code   int
	Signal os.Signal
}

// Normal reports whether the run counts as ended by itself, whatever its code.
// A contract that ends itself with SIGINT, as the Node.js library does on
// forceTerminate, does (spec/hotpocket.md section 2.5); one killed by the node
// does not.
func (r *Result) Normal() bool {
	if r.StartError != nil || r.TimedOut || r.Canceled {
		return false
	}
	return r.Exit.Signal == nil || r.Exit.Signal == os.Interrupt
}
