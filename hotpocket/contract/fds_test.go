package contract_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"evernode/hotpocket/contract"
)

// The limit belongs to the process, so the test changes it in a child: itself.
func TestRaiseFileLimit(t *testing.T) {
	if os.Getenv("CONTRACT_TEST_LIMIT") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRaiseFileLimit$", "-test.v")
		cmd.Env = append(os.Environ(), "CONTRACT_TEST_LIMIT=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "limit checked") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 200, Max: 400}); err != nil {
		t.Fatal(err)
	}
	if got, err := contract.RaiseFileLimit(300); err != nil || got != 400 {
		t.Errorf("within the hard limit: %d, %v", got, err)
	}
	run := consensusRun(t, make([][]string, 300)...)
	b := newBench(t)
	_, err := b.Execute(t.Context(), contract.Program{BinPath: "/bin/true"}, run, contract.Hooks{})
	if err == nil || !strings.Contains(err.Error(), "limit of open files is too low") {
		t.Errorf("too many users: %v", err)
	}
	got, err := contract.RaiseFileLimit(2000)
	if err != nil {
		// Without privileges the answer must be clear and what there is in force.
		if got != 400 || !strings.Contains(err.Error(), "400") {
			t.Errorf("%d, %v", got, err)
		}
	} else if got != 2000 {
		t.Errorf("raised to %d", got)
	} else if res := b.execute(t, contract.Program{BinPath: "/bin/true"}, run); res.StartError != nil {
		t.Error(res.StartError)
	}
	t.Log("limit checked")
}

func TestCloseOnExecAll(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	leak, err := syscall.Dup(int(f.Fd())) // without the flag
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leak)
	if err := contract.CloseOnExecAll(); err != nil {
		t.Fatal(err)
	}
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(leak), syscall.F_GETFD, 0)
	if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, errno)
	}
	if flags, _, _ := syscall.Syscall(syscall.SYS_FCNTL, 2, syscall.F_GETFD, 0); flags&syscall.FD_CLOEXEC != 0 {
		t.Error("standard error was marked too")
	}
}
