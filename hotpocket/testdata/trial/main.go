// Command trial is the contract of the node's tests. It notes every input it
// executes in the file log, answers it, and does what some inputs ask for: most
// of it is what no contract should do.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"evernode/sdk/contract"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	told, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	ctx, err := contract.Load(bytes.NewReader(told))
	if err != nil {
		return err
	}
	var fds struct{ Users map[string][]json.RawMessage }
	if err := json.Unmarshal(told, &fds); err != nil {
		return err
	}
	for _, u := range ctx.Users {
		var fd int
		if err := json.Unmarshal(fds.Users[u.PublicKey][0], &fd); err != nil {
			return err
		}
		for _, in := range u.Inputs {
			if ctx.ReadOnly {
				b, err := os.ReadFile("log")
				if err != nil && !os.IsNotExist(err) {
					return err
				}
				return u.Send(append([]byte("log:"), b...))
			}
			f, err := os.OpenFile("log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(f, "%s %s\n", u.PublicKey[:10], in); err != nil {
				return err
			}
			f.Close()
			if err := obey(ctx, fd, strings.Fields(string(in))); err != nil {
				return err
			}
			if err := u.Send(append([]byte("ok "), in...)); err != nil {
				return err
			}
		}
	}
	return nil
}

const patch = "../patch.cfg"

func obey(ctx *contract.Context, fd int, words []string) error {
	change := func(f func(*contract.Config)) error {
		cfg, err := ctx.Config()
		if err != nil {
			return err
		}
		f(cfg)
		return ctx.UpdateConfig(cfg)
	}
	arg := ""
	if len(words) > 1 {
		arg = words[1]
	}
	switch words[0] {
	case "sleep":
		ms, err := strconv.Atoi(arg)
		time.Sleep(time.Duration(ms) * time.Millisecond)
		return err
	case "hang":
		time.Sleep(time.Hour)
	case "crash":
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "exit":
		os.Exit(7)
	case "half":
		if _, err := syscall.Write(fd, []byte{0, 0}); err != nil {
			return err
		}
		os.Exit(0)
	case "flood":
		frame := binary.BigEndian.AppendUint32(nil, 60000)
		frame = append(frame, make([]byte, 60000)...)
		for range 400 {
			if _, err := syscall.Write(fd, frame); err != nil {
				return err
			}
		}
	case "roundtime":
		ms, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		return change(func(c *contract.Config) { c.Consensus.RoundTime = uint32(ms) })
	case "add":
		return change(func(c *contract.Config) { c.UNL = append(c.UNL, arg) })
	case "remove":
		return change(func(c *contract.Config) {
			c.UNL = slices.DeleteFunc(c.UNL, func(k string) bool { return k == arg })
		})
	case "copy":
		b, err := os.ReadFile(arg)
		if err != nil {
			return err
		}
		return os.WriteFile("copied", b, 0o644)
	case "patch-bad":
		return os.WriteFile(patch, []byte(`{"unl": []}`), 0o644)
	case "patch-gone":
		return os.Remove(patch)
	case "patch-pipe":
		return replace(func() error { return syscall.Mkfifo(patch, 0o644) })
	case "patch-link":
		return replace(func() error { return os.Symlink("/dev/zero", patch) })
	case "patch-folder":
		return replace(func() error { return os.MkdirAll(patch+"/x", 0o755) })
	}
	return nil
}

func replace(f func() error) error {
	if err := os.Remove(patch); err != nil {
		return err
	}
	return f()
}
