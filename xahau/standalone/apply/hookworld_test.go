package apply

import (
	"context"
	"fmt"
	"os"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/hook"
	"evernode/xahau/standalone/shamap"
	"evernode/xahau/standalone/tx"
	"evernode/xahau/standalone/view"
)

// newHookWorld is a world in which hooks can be installed.
func newHookWorld(t testing.TB, balances map[string]int64) *world {
	t.Helper()
	w := newWorld(t, balances)
	m, err := hook.New(context.Background(), hook.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	w.cfg.Engine.Table.Add(tx.SetHook(m, nil))
	w.cfg.Emissions = NewHooks(m, w.cfg.Engine, nil)
	w.next(nil)
	return w
}

// testHook gives the code of a test hook of this package.
func testHook(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/hooks/" + name + ".wasm")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hookReserve is how many entries an account's hooks count for.
func hookReserve(o *xahau.Object) int {
	n := 0
	for _, e := range o.Array(field.Hooks) {
		if e.Object.Has(field.HookHash) {
			n += 1 + len(e.Object.Array(field.HookParameters)) + len(e.Object.Array(field.HookGrants))
		}
	}
	return n
}

// stateEntries is how many entries one entry of hook state counts for.
func stateEntries(entries map[xahau.Hash256]*xahau.Object, a xahau.AccountID) int {
	root := entries[keylet.Account(a).Index]
	if root == nil {
		return 0
	}
	return max(int(root.Uint16(field.HookStateScale)), 1)
}

// checkHooks checks that definitions are counted, and that accounts know their
// state.
func checkHooks(entries map[xahau.Hash256]*xahau.Object) error {
	references := map[xahau.Hash256]uint64{}
	states := map[xahau.Hash256]int{} // by directory
	for index, o := range entries {
		switch o.EntryType() {
		case xahau.EntryHook:
			if keylet.Hook(o.Account(field.Account)).Index != index {
				return fmt.Errorf("hooks %s are not of %s", index, o.Account(field.Account))
			}
			for _, e := range o.Array(field.Hooks) {
				if h, ok := xahau.Lookup[xahau.Hash256](e.Object, field.HookHash); ok {
					references[h]++
				}
			}
		case xahau.EntryDirectoryNode:
			for _, i := range o.Vector(field.Indexes) {
				if entries[i].EntryType() == xahau.EntryHookState {
					states[o.Hash(field.RootIndex)]++
				}
			}
		}
	}
	for _, o := range entries {
		switch o.EntryType() {
		case xahau.EntryHookDefinition:
			h := o.Hash(field.HookHash)
			if xahau.HookHash(o.Blob(field.CreateCode)) != h || references[h] != o.Uint64(field.ReferenceCount) || references[h] == 0 {
				return fmt.Errorf("definition %s is used %d times, it says %d", h, references[h], o.Uint64(field.ReferenceCount))
			}
			delete(references, h)
		case xahau.EntryAccountRoot:
			a, n := o.Account(field.Account), 0
			for _, ns := range o.Vector(field.HookNamespaces) {
				k := keylet.HookStateDirectory(a, ns)
				if states[k.Index] == 0 {
					return fmt.Errorf("%s names the empty namespace %s", a, ns)
				}
				n += states[k.Index]
				delete(states, k.Index)
			}
			if int(o.Uint32(field.HookStateCount)) != n {
				return fmt.Errorf("%s has %d entries of hook state, it says %d", a, n, o.Uint32(field.HookStateCount))
			}
		}
	}
	if len(references) > 0 {
		return fmt.Errorf("%d definitions are missing", len(references))
	}
	if len(states) > 0 {
		return fmt.Errorf("%d namespaces are named by no account", len(states))
	}
	return nil
}

// changes gives what a sandbox changed as a state map takes it.
func (w *world) changes(s *view.Sandbox) []shamap.Change {
	w.t.Helper()
	var list []shamap.Change
	for _, ch := range s.Changes() {
		b, err := w.defs.Encode(ch.After)
		if err != nil {
			w.t.Fatal(err)
		}
		list = append(list, shamap.Change{Key: ch.Index, Data: b})
	}
	return list
}

func must2(m shamap.Map, err error) shamap.Map {
	if err != nil {
		panic(err)
	}
	return m
}
