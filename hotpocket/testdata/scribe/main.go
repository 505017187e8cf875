// Command scribe is the contract of the tests that kill processes: it changes
// files as package script says for the number in each input, slowly enough to be
// killed in the middle, and answers with the number.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"evernode/hotpocket/testdata/scribe/script"
	"evernode/sdk/contract"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "scribe:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, err := contract.Load(os.Stdin)
	if err != nil {
		return err
	}
	for _, u := range ctx.Users {
		for _, in := range u.Inputs {
			what, arg, _ := strings.Cut(string(in), " ")
			n, err := strconv.ParseUint(arg, 10, 64)
			if err != nil {
				return err
			}
			switch what {
			case "fill":
				// As much as there is room for: the answer says how it ended.
				err = fill(int(n))
				answer := "filled"
				if errors.Is(err, syscall.ENOSPC) {
					answer, err = "no space", nil
				}
				if err != nil {
					return err
				}
				if err := u.Send([]byte(answer)); err != nil {
					return err
				}
				continue
			case "free":
				if err := os.RemoveAll("fill"); err != nil {
					return err
				}
			case "do":
				if err := do(n); err != nil {
					return err
				}
			}
			if err := u.Send([]byte("done " + arg)); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill writes a file of n MiB.
func fill(n int) error {
	f, err := os.Create("fill")
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for range n {
		if _, err := f.Write(block); err != nil {
			f.Close()
			// What is left of it must not depend on the disk.
			return errors.Join(err, os.Remove("fill"))
		}
	}
	return f.Close()
}

func do(n uint64) error {
	if _, err := os.Stat(script.Big); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(script.Big, make([]byte, script.BigSize), 0o644); err != nil {
			return err
		}
	}
	for _, s := range script.Steps(n) {
		time.Sleep(3 * time.Millisecond)
		if err := take(s); err != nil {
			return fmt.Errorf("step %+v: %w", s.Kind, err)
		}
	}
	f, err := os.OpenFile("log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f, n); err != nil {
		return err
	}
	return f.Close()
}

func take(s script.Step) error {
	if err := os.MkdirAll(filepath.Dir(s.Path), 0o755); err != nil {
		return err
	}
	info, err := os.Lstat(s.Path)
	isFile := err == nil && info.Mode().IsRegular()
	write := func(flags int) error {
		f, err := os.OpenFile(s.Path, os.O_WRONLY|flags, 0o644)
		if err != nil {
			return err
		}
		if flags&os.O_APPEND == 0 {
			_, err = f.WriteAt(s.Data, s.Offset)
		} else {
			_, err = f.Write(s.Data)
		}
		return errors.Join(err, f.Close())
	}
	switch {
	case s.Kind == script.Create:
		return write(os.O_CREATE | os.O_TRUNC)
	case s.Kind == script.Mkdir:
		return os.MkdirAll(s.Path, 0o755)
	case s.Kind == script.Symlink:
		if err := os.Remove(s.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.Symlink(s.To, s.Path)
	case !isFile:
		return nil
	case s.Kind == script.Append:
		return write(os.O_APPEND)
	case s.Kind == script.Patch:
		return write(0)
	case s.Kind == script.Truncate && info.Size() > s.Offset:
		return os.Truncate(s.Path, s.Offset)
	case s.Kind == script.Rename:
		if err := os.MkdirAll(filepath.Dir(s.To), 0o755); err != nil {
			return err
		}
		return os.Rename(s.Path, s.To)
	case s.Kind == script.Remove:
		return os.Remove(s.Path)
	case s.Kind == script.Chmod:
		return os.Chmod(s.Path, fs.FileMode(s.Mode))
	}
	return nil
}
