// Package nodelog is a node's own log: one line per event, to the console and
// to files that are rolled so that they stay within what hp.cfg allows
// (spec/hotpocket.md sections 3.2 and 3.3).
//
// The command line opens it and hands its logger to the node. It decides
// nothing about what is logged.
package nodelog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"evernode/hotpocket/config"
)

// Open opens the log that hp.cfg asks for, its files beginning at path. Closing
// it closes the file.
func Open(c config.Log, path string, console io.Writer) (*slog.Logger, io.Closer, error) {
	s := &sink{}
	if c.Console() {
		s.console = console
	}
	if c.File() {
		f := &rolling{path: path, max: int64(c.MaxMBytesPerFile) << 20, count: c.MaxFileCount}
		if err := f.open(); err != nil {
			return nil, nil, fmt.Errorf("open the node's log: %w", err)
		}
		s.file = f
	}
	return slog.New(&handler{sink: s, level: c.SlogLevel()}), s, nil
}

// sink writes whole lines to where they go.
type sink struct {
	mu      sync.Mutex
	console io.Writer
	file    *rolling
	failed  bool
}

func (s *sink) write(line []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs [2]error
	if s.console != nil {
		_, errs[0] = s.console.Write(line)
	}
	if s.file != nil {
		errs[1] = s.file.write(line)
		// A full disk must be seen where it still can be, once.
		if failed := errs[1] != nil; failed != s.failed {
			s.failed = failed
			if failed && s.console != nil {
				fmt.Fprintln(s.console, "the node's log file cannot be written:", errs[1])
			}
		}
	}
	return errors.Join(errs[:]...)
}

// Close closes the log file.
func (s *sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil || s.file.f == nil {
		return nil
	}
	return s.file.f.Close()
}

// rolling is a log file that is put aside when it is full: hp.log becomes
// hp_1.log, that hp_2.log, and so on up to count files in all.
type rolling struct {
	path  string
	max   int64
	count int
	f     *os.File
	size  int64
}

func (r *rolling) open() error {
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	r.f, r.size = f, info.Size()
	return nil
}

func (r *rolling) write(line []byte) error {
	if r.f == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	if r.size > 0 && r.size+int64(len(line)) > r.max {
		if err := r.roll(); err != nil {
			return err
		}
	}
	n, err := r.f.Write(line)
	r.size += int64(n)
	return err
}

// roll puts the file aside and begins another.
func (r *rolling) roll() error {
	err := r.f.Close()
	r.f = nil
	name := func(i int) string {
		if i == 0 {
			return r.path
		}
		ext := filepath.Ext(r.path)
		return strings.TrimSuffix(r.path, ext) + "_" + strconv.Itoa(i) + ext
	}
	if r.count <= 1 {
		err = errors.Join(err, os.Remove(r.path))
	}
	for i := r.count - 2; i >= 0; i-- {
		if e := os.Rename(name(i), name(i+1)); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, r.open())
}

// handler writes events as "20060102 15:04:05.000 [inf][hpc] text key=value",
// the form of the original with the details after the text.
type handler struct {
	sink   *sink
	level  slog.Level
	prefix string // of groups
	attrs  []byte // of With, ready to be written
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	line := make([]byte, 0, 256)
	line = r.Time.UTC().AppendFormat(line, "20060102 15:04:05.000")
	line = append(line, " ["+levelName(r.Level)+"][hpc] "...)
	line = append(line, singleLine(r.Message)...)
	line = append(line, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		line = appendAttr(line, h.prefix, a)
		return true
	})
	return h.sink.write(append(line, '\n'))
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		next.attrs = appendAttr(next.attrs, h.prefix, a)
	}
	return &next
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.prefix += name + "."
	return &next
}

func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "dbg"
	case l < slog.LevelWarn:
		return "inf"
	case l < slog.LevelError:
		return "wrn"
	}
	return "err"
}

func appendAttr(b []byte, prefix string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range v.Group() {
			b = appendAttr(b, prefix, inner)
		}
		return b
	}
	if a.Key == "" {
		return b
	}
	b = append(b, ' ')
	b = append(b, prefix...)
	b = append(b, a.Key...)
	b = append(b, '=')
	text := v.String()
	if text == "" || strings.ContainsAny(text, " \"=") || singleLine(text) != text {
		return strconv.AppendQuote(b, text)
	}
	return append(b, text...)
}

// singleLine escapes what would let text from outside look like another event
// or act on a terminal.
func singleLine(s string) string {
	if !strings.ContainsFunc(s, control) {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

func control(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\uFFFD' }
