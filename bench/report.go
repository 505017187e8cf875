package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// measurement is one row of the report and of bench.json.
type measurement struct {
	Name  string   `json:"name"`
	Value float64  `json:"value"`
	Unit  string   `json:"unit"`
	Peer  *float64 `json:"peer"`  // what the same machine does at best, measured in the same run; null where there is nothing to compare with
	Ratio *float64 `json:"ratio"` // Value ÷ Peer

	peerName string
	target   *target
}

// target is what must hold of a measurement.
type target struct {
	limit float64
	least bool // Value must be at least limit, not at most
	of    bool // it is the ratio that is limited, not the value
}

func atMost(limit float64) *target  { return &target{limit: limit} }
func atLeast(limit float64) *target { return &target{limit: limit, least: true} }

// met reports whether the target holds; a value that was not measured misses it.
func (m *measurement) met() bool {
	v := m.Value
	if m.target.of {
		if m.Ratio == nil {
			return false
		}
		v = *m.Ratio
	}
	if m.target.least {
		return v >= m.target.limit
	}
	return v <= m.target.limit
}

func (m *measurement) says() string {
	if m.target == nil {
		return ""
	}
	limit := number(m.target.limit) + " " + m.Unit
	if m.target.of {
		limit = "ratio " + number(m.target.limit)
	}
	word := "at most "
	if m.target.least {
		word = "at least "
	}
	verdict := "✓ holds: "
	if !m.met() {
		verdict = "✗ misses: "
	}
	return verdict + word + limit
}

// report gathers the rows.
type report struct {
	rows  []*measurement
	notes []string
}

func (r *report) add(name string, value float64, unit string) *measurement {
	m := &measurement{Name: name, Value: value, Unit: unit}
	r.rows = append(r.rows, m)
	return m
}

// beside puts a peer's value next to the row's own.
func (m *measurement) beside(peer float64, name string) *measurement {
	m.Peer, m.peerName = &peer, name
	if peer > 0 {
		ratio := m.Value / peer
		m.Ratio = &ratio
	}
	return m
}

func (m *measurement) must(t *target) *measurement {
	m.target = t
	return m
}

func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// find returns the value of a row that was measured before.
func (r *report) find(name string) (float64, bool) {
	for _, m := range r.rows {
		if m.Name == name {
			return m.Value, true
		}
	}
	return 0, false
}

// missed lists the rows whose target does not hold.
func (r *report) missed() (out []string) {
	for _, m := range r.rows {
		if m.target != nil && !m.met() {
			out = append(out, fmt.Sprintf("%s: %s %s, %s", m.Name, number(m.Value), m.Unit, m.says()))
		}
	}
	return out
}

// number prints with three significant digits, and whole from 100 on.
func number(v float64) string {
	a := math.Abs(v)
	switch {
	case a == 0 || a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func (r *report) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEASURED\tVALUE\tPEER IN THE SAME RUN\tRATIO\tMUST HOLD")
	for _, m := range r.rows {
		peer, ratio := "-", "-"
		if m.Peer != nil {
			peer = number(*m.Peer) + " " + m.Unit + " " + m.peerName
		}
		if m.Ratio != nil {
			ratio = number(*m.Ratio) + "x"
		}
		fmt.Fprintf(t, "%s\t%s %s\t%s\t%s\t%s\n", m.Name, number(m.Value), m.Unit, peer, ratio, m.says())
	}
	t.Flush()
	if len(r.notes) > 0 {
		fmt.Fprintln(w, "\nMethod")
		for _, n := range r.notes {
			fmt.Fprintln(w, "- "+n)
		}
	}
}

func (r *report) writeJSON(path string) error {
	b, err := json.MarshalIndent(r.rows, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// samples are durations of one kind.
type samples []time.Duration

// quantile returns the q-quantile in milliseconds, by nearest rank; NaN-free: 0
// when there are no samples.
func (s samples) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Clone(s)
	slices.Sort(sorted)
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return float64(sorted[min(max(i, 0), len(sorted)-1)]) / float64(time.Millisecond)
}

// percent is a share of one processor.
func percent(used, of time.Duration) float64 { return 100 * float64(used) / float64(of) }

func join(values []float64) string {
	var parts []string
	for _, v := range values {
		parts = append(parts, number(v))
	}
	return strings.Join(parts, ", ")
}
