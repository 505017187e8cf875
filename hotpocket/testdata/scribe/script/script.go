// Package script is what the scribe does with its files for an input: a list of
// steps that follows from a number. The contract takes them on disk, the test's
// oracle in memory.
package script

import (
	"fmt"
	"math/rand/v2"
)

// Kind says what a step does.
type Kind int

// The kinds of steps.
const (
	Create   Kind = iota // Path gets Data as its whole content
	Append               // Data at the end of Path
	Patch                // Data at Offset of Big
	Truncate             // Path to Offset bytes, if it is longer
	Rename               // Path to To, whatever is there
	Remove
	Mkdir   // with all above it
	Symlink // Path to To
	Chmod
	kinds
)

// Big is a file that is changed in place. It has BigSize bytes from the first
// input on.
const (
	Big     = "big"
	BigSize = 3 << 20
)

// Step is one change. A step on a Path that is not there, or is no file, does
// nothing, except Create, Mkdir and Symlink.
type Step struct {
	Kind   Kind
	Path   string
	To     string
	Data   []byte
	Offset int64
	Mode   uint32
}

// Steps returns what the input with a number does.
func Steps(n uint64) []Step {
	r := rand.New(rand.NewPCG(n, 7))
	file := func() string { return fmt.Sprintf("d%d/f%d", r.IntN(3), r.IntN(6)) }
	data := func(most int) []byte {
		b := make([]byte, 1+r.IntN(most))
		fill := byte(r.Uint32())
		for i := range b {
			b[i] = fill + byte(i*i>>3)
		}
		return b
	}
	var steps []Step
	for range 6 + r.IntN(6) {
		s := Step{Kind: Kind(r.IntN(int(kinds))), Path: file()}
		switch s.Kind {
		case Create:
			s.Data = data(20000)
		case Append:
			s.Data = data(3000)
		case Patch:
			s.Path, s.Data = Big, data(9000)
			s.Offset = r.Int64N(BigSize - 9000)
		case Truncate:
			s.Offset = r.Int64N(8000)
		case Rename:
			s.To = file()
		case Symlink:
			s.Path, s.To = fmt.Sprintf("d%d/l%d", r.IntN(3), r.IntN(3)), file()
		case Chmod:
			s.Mode = []uint32{0o600, 0o644, 0o640, 0o755}[r.IntN(4)]
		case Mkdir:
			s.Path = fmt.Sprintf("d%d/e%d/g%d", r.IntN(3), r.IntN(3), r.IntN(3))
		}
		steps = append(steps, s)
	}
	return steps
}
