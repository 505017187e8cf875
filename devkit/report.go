package devkit

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// Reporter tells a person what happens. It is safe for concurrent use.
type Reporter interface {
	// Step reports something that was done or found.
	Step(text string)
	// Wait reports what is being waited for; each call replaces the last.
	Wait(text string)
}

// NewReporter reports to w. On a terminal, what is waited for is shown in one
// line that changes; elsewhere each change has its line.
func NewReporter(w io.Writer) Reporter {
	f, ok := w.(*os.File)
	return &reporter{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

type reporter struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	waiting  string
}

func (r *reporter) Step(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	fmt.Fprintln(r.w, text)
}

func (r *reporter) Wait(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if text == r.waiting {
		return
	}
	if !r.terminal {
		fmt.Fprintln(r.w, text)
		r.waiting = text
		return
	}
	r.clear()
	fmt.Fprint(r.w, text)
	r.waiting = text
}

// clear removes the line that shows what is waited for.
func (r *reporter) clear() {
	if r.terminal && r.waiting != "" {
		fmt.Fprint(r.w, "\r\x1b[K")
	}
	r.waiting = ""
}

// Quiet reports nothing.
type Quiet struct{}

// Step does nothing.
func (Quiet) Step(string) {}

// Wait does nothing.
func (Quiet) Wait(string) {}
