package hotpocket

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
	"evernode/hotpocket/statefs/backend"
)

// backends lists the kinds of state that this machine can have.
func backends(t *testing.T) []string {
	if *stateBackend != "" {
		return []string{*stateBackend}
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil || os.Geteuid() != 0 {
		t.Log("without FUSE only the plain folder is tested:", err)
		return []string{backend.Dir}
	} else {
		f.Close()
	}
	return []string{backend.FUSE, backend.Dir}
}

// smallDisk mounts an ext4 of its own on a folder until the test ends. What is in
// the folder moves there.
func smallDisk(t *testing.T, dir string, megabytes int64) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	image := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Truncate(megabytes << 20)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Skipf("cannot make an ext4: %v %s", err, out)
	}
	was := dir + ".was"
	if err := os.Rename(dir, was); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a small disk: %v %s", err, out)
	}
	if out, err := exec.Command("cp", "-a", was+"/.", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	t.Cleanup(func() {
		for range 50 {
			if err = syscall.Unmount(dir, 0); !errors.Is(err, syscall.EBUSY) {
				break
			}
			time.Sleep(100 * time.Millisecond) // what used it is still ending
		}
		if err != nil {
			t.Error(err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
}

// fillUp writes a file until the disk has no room, and returns its name.
func fillUp(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1 << 20, 4096, 1} {
		block := make([]byte, size)
		for err = nil; err == nil; _, err = f.Write(block) {
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// With a full disk the contract gets ENOSPC; the node stays up, says so, and is
// in step again when there is room.
func TestFullDiskOfTheState(t *testing.T) {
	bin := buildGo(t, "./testdata/scribe")
	for _, kind := range backends(t) {
		t.Run(kind, func(t *testing.T) {
			s := &scribes{oracle: newOracle(bin, t), next: 1}
			s.cluster = makeCluster(t, 3, 3, bin, func(_ int, conf *config.Config) {
				conf.HPFS.Backend = kind
				conf.Contract.Consensus.Roundtime = 200 * time.Millisecond
			})
			disk := config.Layout(s.cluster.nodes[2].dir).ContractFS()
			smallDisk(t, disk, 64)
			s.ps = s.cluster.processes()
			s.agreed("the first state")
			u, full := s.ps[0].user(), s.ps[2]
			s.input(u)
			s.agreed("an input")

			// The contract itself fills the disk: on one node it cannot.
			if f := u.send("fill 100", 20*time.Second); f.err != nil {
				t.Fatal(f.err)
			}
			for got := u.output(); got != "filled"; got = u.output() {
				if got == "no space" {
					t.Fatal("the disks of the other nodes are too small for this test")
				}
			}
			log := func(p *process) string {
				b, err := os.ReadFile(p.out.Name())
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			s.eventually("the node says that the state does not fit", func(all []control.Status) bool {
				return strings.Contains(log(full), "no space left on device") && all[0].VoteStatus == voteDesync
			}, full.member)
			if f := u.send("free 1", 20*time.Second); f.err != nil {
				t.Fatal(f.err)
			}
			s.agreed("the contract has made room")

			// Somebody else fills it.
			filler := fillUp(t, disk)
			s.eventually("the node says that the disk is full", func(all []control.Status) bool {
				return strings.Contains(all[0].Trouble, "is full")
			}, full.member)
			for range 5 {
				s.input(u)
			}
			s.eventually("the others go on", func(all []control.Status) bool {
				want := s.oracle.root(t).String()
				return all[0].StateHash == want && all[1].StateHash == want
			}, s.ps[0].member, s.ps[1].member)
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			s.agreed("there is room again")
			if text := log(full); !strings.Contains(text, "the disk is full") || !strings.Contains(text, "there is room on the disk again") {
				t.Error("the log does not say what happened")
			}
			s.input(u)
			s.agreed("and it goes on")
		})
	}
}

// A node that is alone stays up as well, and executes when there is room.
func TestFullDiskOfALonelyNode(t *testing.T) {
	bin := buildGo(t, "./testdata/scribe")
	for _, kind := range backends(t) {
		t.Run(kind, func(t *testing.T) {
			c := makeCluster(t, 1, 1, bin, func(_ int, conf *config.Config) {
				conf.HPFS.Backend = kind
				conf.Contract.Consensus.Roundtime = 200 * time.Millisecond
			})
			disk := config.Layout(c.nodes[0].dir).ContractFS()
			smallDisk(t, disk, 64)
			ps := c.processes()
			u := ps[0].user()
			u.must("do 1", "done 1")
			u.must("fill 200", "no space")
			u.must("do 2", "done 2")
			filler := fillUp(t, disk)
			c.eventually("the node says that the disk is full", func(all []control.Status) bool {
				return strings.Contains(all[0].Trouble, "is full")
			}, ps[0].member)
			// It may only be accepted when there is room again, and what the
			// contract makes of a full disk is its own business.
			sent := make(chan fate)
			go func() { sent <- u.send("do 3", 20*time.Second) }()
			time.Sleep(500 * time.Millisecond)
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			if f := <-sent; f.err != nil {
				t.Fatal(f.err)
			}
			c.eventually("there is room again", func(all []control.Status) bool { return all[0].Trouble == "" }, ps[0].member)
			if f := u.send("do 4", 20*time.Second); f.err != nil {
				t.Fatal(f.err)
			}
			for u.output() != "done 4" {
			}
		})
	}
}
