package contract_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"evernode/hotpocket/contract"
)

// cgroupFolder makes a folder of control groups, where the machine lets us.
func cgroupFolder(t testing.TB) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		dir, err := os.MkdirTemp(root, "contract-test")
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Errorf("control groups were left behind: %v", err)
			}
		})
		return dir
	}
	t.Skip("control groups (cgroup v2) cannot be made here")
	return ""
}

// With control groups not even a process with a session of its own survives.
func TestCgroup(t *testing.T) {
	dir := cgroupFolder(t)
	// Left by a node that was killed.
	if err := os.Mkdir(filepath.Join(dir, "contract-1"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(o *contract.Options) { o.Cgroup = dir })
	run := consensusRun(t, []string{"x"})
	script := "setsid sh -c 'sleep 0.3; touch survived' & sleep 0.1; exit 0"
	if err := os.WriteFile(filepath.Join(run.Dir, "c.sh"), []byte("#!/bin/sh\nPATH=/usr/bin:/bin\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run.Dir, "post_exec.sh"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	prog := contract.Program{BinPath: "./c.sh", Limits: contract.Limits{OpenFiles: 100}}
	res := b.execute(t, prog, run)
	if !res.Normal() || res.PostExec == nil || res.PostExec.Failed() {
		t.Fatalf("%+v", res)
	}
	time.Sleep(500 * time.Millisecond)
	if exists(t, filepath.Join(run.Dir, "survived")) {
		t.Error("a process survived its run")
	}
	b.execute(t, hostile(t, "daemon"), run)
	if res := b.execute(t, contract.Program{BinPath: "missing"}, run); res.StartError == nil {
		t.Error("a program that is not there was started")
	}
}
