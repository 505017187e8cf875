package xfl

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The C library computes what a server computes.
const libm = `
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
int main(void) {
	char op;
	unsigned long long x, y;
	double a, b, r;
	while (scanf(" %c %llx %llx", &op, &x, &y) == 3) {
		memcpy(&a, &x, 8);
		memcpy(&b, &y, 8);
		r = op == 'l' ? log10(a) : pow(a, b);
		memcpy(&x, &r, 8);
		printf("%llx\n", x);
	}
	return 0;
}
`

type question struct {
	op   byte
	x, y float64
}

func askLibm(t *testing.T, questions []question) []float64 {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("gcc is not installed")
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "m.c"), filepath.Join(dir, "m")
	if err := os.WriteFile(source, []byte(libm), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-O1", "-fno-builtin", "-o", program, source, "-lm").CombinedOutput(); err != nil {
		t.Skipf("gcc: %v\n%s", err, out)
	}
	var in strings.Builder
	for _, q := range questions {
		fmt.Fprintf(&in, "%c %x %x\n", q.op, math.Float64bits(q.x), math.Float64bits(q.y))
	}
	cmd := exec.Command(program)
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answers []float64
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		var bits uint64
		fmt.Sscanf(s.Text(), "%x", &bits)
		answers = append(answers, math.Float64frombits(bits))
	}
	if len(answers) != len(questions) {
		t.Fatalf("%d answers to %d questions", len(answers), len(questions))
	}
	return answers
}

// compareLibm allows a share of the answers to differ, and those by two units of
// the last place: the C library itself does not always round correctly.
func compareLibm(t *testing.T, questions []question, ours func(question) float64, mayDiffer float64) {
	t.Helper()
	differ := 0
	for i, want := range askLibm(t, questions) {
		q := questions[i]
		got := ours(q)
		if got == want {
			continue
		}
		differ++
		if d := int64(math.Float64bits(got) - math.Float64bits(want)); d < -2 || d > 2 {
			t.Fatalf("%c(%v, %v) = %v, the C library says %v", q.op, q.x, q.y, got, want)
		}
		if differ <= 3 {
			t.Logf("%c(%v, %v) = %v, the C library says %v", q.op, q.x, q.y, got, want)
		}
	}
	if share := float64(differ) / float64(len(questions)); share > mayDiffer {
		t.Errorf("%d of %d differ from the C library in the last bit, more than %v", differ, len(questions), mayDiffer)
	} else {
		t.Logf("%d of %d differ from the C library in the last bit", differ, len(questions))
	}
}

// The order of a number decides which digits it has, so it must be the C
// library's wherever a number is near a power of ten.
func TestOrderIsTheCLibrarys(t *testing.T) {
	var questions []question
	for k := 1; k < 20; k++ {
		for d := -300; d <= 300; d++ {
			if k == 19 && d > 0 {
				break
			}
			if m := powersOfTen[k] + uint64(d); int64(powersOfTen[k])+int64(d) > 0 || k == 19 {
				questions = append(questions, question{op: 'l', x: float64(m)})
			}
		}
	}
	for i, want := range askLibm(t, questions) {
		if got := order(uint64(questions[i].x)); got != int(want) {
			t.Errorf("order of %.0f is %d, the C library says %d (%v)", questions[i].x, got, int(want), want)
		}
	}
}

func TestLog10IsTheCLibrarys(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var mantissas, others []question
	for range 100_000 {
		mantissas = append(mantissas, question{op: 'l', x: float64(MinMantissa + r.Uint64N(MaxMantissa-MinMantissa+1))})
		others = append(others, question{op: 'l', x: math.Exp(r.NormFloat64() * 60)})
	}
	compareLibm(t, mantissas, func(q question) float64 { return log10(q.x) }, 0.0001)
	compareLibm(t, others, func(q question) float64 { return log10(q.x) }, 0.002)
}

func TestPowIsTheCLibrarys(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var questions []question
	for range 100_000 {
		n := 2 + r.IntN(100)
		if r.IntN(4) == 0 {
			n = 2 + r.IntN(math.MaxUint32-2)
		}
		x := float64(float64(MinMantissa+r.Uint64N(MaxMantissa-MinMantissa+1)) * pow10(MinExponent+r.IntN(MaxExponent-MinExponent+1)))
		questions = append(questions, question{op: 'p', x: x, y: 1 / float64(n)})
	}
	compareLibm(t, questions, func(q question) float64 { return pow(q.x, q.y) }, 0.002)
}

func TestPow10IsTheCLibrarys(t *testing.T) {
	var questions []question
	for e := -120; e <= 120; e++ {
		questions = append(questions, question{op: 'p', x: 10, y: float64(e)})
	}
	compareLibm(t, questions, func(q question) float64 { return pow10(int(q.y)) }, 0)
}

func TestOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(19, 20))
	for range 100_000 {
		m := r.Uint64()>>r.IntN(64) | 1
		if got, want := order(m), int(log10(float64(m))); got != want {
			t.Fatalf("order(%d) = %d, want %d", m, got, want)
		}
	}
}
