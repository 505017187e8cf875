package devkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// tailBytes is how much of a log's end is looked at for its last lines.
const tailBytes = 256 << 10

// Logs writes the last lines of what node n and its contract printed, and with
// follow goes on until ctx ends.
func (c *Cluster) Logs(ctx context.Context, w io.Writer, n, lines int, follow bool) error {
	if n < 1 || n > c.Size() {
		return fmt.Errorf("there is no node %d; this cluster has nodes 1 to %d", n, c.Size())
	}
	if lines < 1 {
		return fmt.Errorf("the number of lines is %d; it must be more than 0", lines)
	}
	path := c.LogFile(n)
	end, err := tail(w, path, lines)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("node %d has printed nothing yet; start it with: evernode dev start %d", n, n)
	}
	if err != nil || !follow {
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if end, err = more(w, path, end); err != nil {
				return err
			}
		}
	}
}

// more copies what was added to a file since from, and returns its new end. A
// file that became shorter was begun anew.
func more(w io.Writer, path string, from int64) (int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return from, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return from, err
	}
	if info.Size() < from {
		from = 0
	}
	n, err := io.Copy(w, io.NewSectionReader(f, from, info.Size()-from))
	return from + n, err
}

// tail writes the last lines of a file and returns where it ends.
func tail(w io.Writer, path string, lines int) (end int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end = info.Size()
	from := max(0, end-tailBytes)
	text := make([]byte, end-from)
	if _, err := f.ReadAt(text, from); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	at := len(text)
	for n := 0; at > 0; at-- {
		if text[at-1] == '\n' && at < len(text) {
			if n++; n == lines {
				break
			}
		}
	}
	_, err = w.Write(text[at:])
	return end, err
}

// lastWords is the end of a node's log, for messages about nodes that fail.
func (c *Cluster) lastWords(i int) string {
	var b bytes.Buffer
	if _, err := tail(&b, c.LogFile(i), 5); err != nil || b.Len() == 0 {
		return "  (nothing)"
	}
	return "  " + strings.ReplaceAll(strings.TrimRight(b.String(), "\n"), "\n", "\n  ")
}
