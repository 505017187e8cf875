package hook

import "strconv"

// Code is what a host function returns to the hook: a result, or one of these
// negative numbers.
type Code int64

// The errors of the Hook API.
const (
	OutOfBounds                  Code = -1
	InternalError                Code = -2
	TooBig                       Code = -3
	TooSmall                     Code = -4
	DoesntExist                  Code = -5
	NoFreeSlots                  Code = -6
	InvalidArgument              Code = -7
	AlreadySet                   Code = -8
	PrerequisiteNotMet           Code = -9
	FeeTooLarge                  Code = -10
	EmissionFailure              Code = -11
	TooManyNonces                Code = -12
	TooManyEmittedTxn            Code = -13
	NotImplemented               Code = -14
	InvalidAccount               Code = -15
	GuardViolation               Code = -16
	InvalidField                 Code = -17
	ParseError                   Code = -18
	NoSuchKeylet                 Code = -21
	NotAnArray                   Code = -22
	NotAnObject                  Code = -23
	InvalidFloat                 Code = -10024
	NotAnIOUAmount               Code = -31
	NotAnAmount                  Code = -32
	NotAuthorized                Code = -34
	PreviousFailurePreventsRetry Code = -35
	TooManyParams                Code = -36
	InvalidTxn                   Code = -37
	ReserveInsufficient          Code = -38
	DoesNotMatch                 Code = -40
	InvalidKey                   Code = -41
	NotAString                   Code = -42
	MemOverlap                   Code = -43
	TooManyStateModifications    Code = -44
	TooManyNamespaces            Code = -45
)

// Exit tells how a run ended. The numbers are those of HookResult in metadata.
type Exit uint8

const (
	// Unset is the exit of a hook that returned without accept or rollback; the
	// network treats it like a rollback.
	Unset Exit = 0
	// Failed is a trap, or a budget that was used up.
	Failed Exit = 1
	// Rollback is rollback, or a guard that was violated.
	Rollback Exit = 2
	// Accept is accept.
	Accept Exit = 3
)

// String names the exit as explorers do.
func (e Exit) String() string {
	switch e {
	case Unset:
		return "UNSET"
	case Failed:
		return "WASM_ERROR"
	case Rollback:
		return "ROLLBACK"
	case Accept:
		return "ACCEPT"
	}
	return "EXIT(" + strconv.Itoa(int(e)) + ")"
}

// Limits of the Hook API that are part of its rules.
const (
	// MaxCode is the size of the largest module in bytes.
	MaxCode = 65_535
	// MaxChain is the number of hooks on one account.
	MaxChain = 10

	minCode            = 63
	maxStateData       = 256
	maxStateScale      = 16
	maxStateChanges    = 256
	maxNamespaces      = 256
	maxSlots           = 255
	maxNonce           = 255
	maxEmit            = 255
	maxOverrides       = 16
	maxParameterName   = 32
	maxParameterValue  = 256
	maxGeneration      = 10
	maxEmissionLedgers = 5
	maxReason          = 256
)
