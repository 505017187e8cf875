package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const killDir = "LEDGER_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		if err := writeUntilKilled(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func killOptions() Options {
	return Options{PrimaryShard: 64, RawShard: 16, MaxPrimary: 2, MaxRaw: 1, SegmentSize: 64 << 10, CheckpointSize: 64 << 10}
}

// writeUntilKilled is the life of a node: for each ledger it makes promises,
// waits for them to be durable, and only then says so on standard output.
func writeUntilKilled(dir string) error {
	ctx := context.Background()
	s, rec, err := Open(ctx, dir, killOptions())
	if err != nil {
		return err
	}
	seq := rec.Last.Seq
	for {
		seq++
		for i := range 2 {
			lsn := s.AppendPromise(fmt.Appendf(nil, "%d/%d", seq, i))
			if err := s.Sync(ctx, lsn); err != nil {
				return err
			}
			fmt.Printf("promise %d %d\n", seq, i)
		}
		if _, err := s.AppendLedger(chainRecord(seq, 300)); err != nil {
			return err
		}
		lsn, err := s.AppendRaw(seq, chainRaw(seq, 5))
		if err != nil {
			return err
		}
		if err := s.Sync(ctx, lsn); err != nil {
			return err
		}
		fmt.Printf("ledger %d\n", seq)
	}
}

// TestKill kills a real process that writes a real disk, again and again, and
// checks that all it had said is there.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir() + "/node"
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	total := uint64(0)
	for round := range 12 {
		lines := 20 + r.IntN(400)
		said := runAndKill(t, dir, lines)
		s, rec, err := Open(context.Background(), dir, killOptions())
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		var ledger, promised, index uint64
		for _, line := range said {
			var a, b uint64
			if n, _ := fmt.Sscanf(line, "ledger %d", &a); n == 1 {
				ledger = a
			} else if n, _ := fmt.Sscanf(line, "promise %d %d", &a, &b); n == 2 {
				promised, index = a, b
			} else {
				t.Fatalf("round %d: the process says %q", round, line)
			}
		}
		if rec.Last.Seq < ledger || rec.Last.Seq > promised {
			t.Errorf("round %d: last ledger is %d; it had said %d and promised for %d", round, rec.Last.Seq, ledger, promised)
		}
		if promised > rec.Last.Seq {
			if uint64(len(rec.Promises)) <= index {
				t.Errorf("round %d: %d promises, it had said number %d", round, len(rec.Promises), index)
			}
			for i, p := range rec.Promises {
				if string(p) != fmt.Sprintf("%d/%d", promised, i) {
					t.Errorf("round %d: promise %d is %q", round, i, p)
				}
			}
		}
		first, _ := s.First()
		for seq := first; seq <= rec.Last.Seq; seq++ {
			got, ok, err := s.Get(seq)
			if want := chainRecord(seq, 300); err != nil || !ok || got.Hash != want.Hash || string(got.Body) != string(want.Body) {
				t.Fatalf("round %d: ledger %d: %v %v", round, seq, ok, err)
			}
			if seq <= ledger && seq >= s.rawFloor(rec.Last.Seq) {
				if raw, ok, err := s.RawOf(seq); err != nil || !ok || len(raw.Outputs) != 5 {
					t.Fatalf("round %d: raw data of ledger %d: %v %v", round, seq, ok, err)
				}
			}
		}
		total = rec.Last.Seq
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d ledgers over 12 kills", total)
}

// runAndKill starts a writer, kills it after it has said a number of lines, and
// returns all lines it said.
func runAndKill(t *testing.T, dir string, lines int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), killDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		said = append(said, scanner.Text())
		if len(said) == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the writer ended with %v after %s", err, strings.Join(said[max(0, len(said)-3):], ", "))
	}
	if len(said) < lines {
		t.Fatalf("the writer said only %d lines", len(said))
	}
	// No line is cut: writes to a pipe of less than 4096 bytes are atomic.
	return said
}
