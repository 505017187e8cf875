package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const idleFor = 20 * time.Second

// runIdle measures what nodes cost when nobody wants anything of them.
func (b *bench) runIdle(ctx context.Context) error {
	before, err := b.cluster.usage()
	if err != nil {
		return err
	}
	start := time.Now()
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for time.Since(start) < idleFor {
		b.progress("idle: %.0f of %.0f s", time.Since(start).Seconds(), idleFor.Seconds())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	elapsed := time.Since(start)
	after, err := b.cluster.usage()
	if err != nil {
		return err
	}
	if len(after) != len(before) {
		return fmt.Errorf("a node ended while idle")
	}
	var own, children []float64
	for i := range after {
		d := after[i].minus(before[i])
		own, children = append(own, percent(d.own, elapsed)), append(children, percent(d.children, elapsed))
	}
	memory, err := b.cluster.resident()
	if err != nil {
		return err
	}
	b.report.add("idle processor use of a node", slices.Max(own), "%").must(atMost(2))
	b.report.add("idle processor use of its contract", slices.Max(children), "%")
	b.report.add("idle memory of a node", slices.Max(memory), "MB")
	b.report.note("idle: %v without users; a ledger and a run of the contract every %v; the busiest node, in %% of one processor (all: %s).", idleFor, roundtime, join(own))
	return nil
}
