package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"evernode/xahau"
)

// Pending is a transaction whose outcome is not known yet.
type Pending struct {
	ID xahau.Hash256 `json:"id"`
	// Blob is the signed transaction.
	Blob xahau.Blob `json:"blob"`
	// First is the last validated ledger before the transaction was sent first, and
	// Last the last one that may contain it.
	First uint32 `json:"first_ledger"`
	Last  uint32 `json:"last_ledger"`
	// Note is for the caller, who finds here after a restart what the transaction
	// was for.
	Note string `json:"note,omitempty"`
}

// Journal keeps pending transactions for a program that starts anew. Its methods
// may be called at the same time.
type Journal interface {
	// Save keeps p; when it returns, p must be safe.
	Save(ctx context.Context, p Pending) error
	// Remove forgets a transaction; to forget an unknown one is no error.
	Remove(ctx context.Context, id xahau.Hash256) error
	// Load gives all that are kept.
	Load(ctx context.Context) ([]Pending, error)
}

// MemoryJournal is a Journal that does not outlive the program.
type MemoryJournal struct {
	mu   sync.Mutex
	list map[xahau.Hash256]Pending
}

// Save implements Journal.
func (m *MemoryJournal) Save(_ context.Context, p Pending) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.list == nil {
		m.list = map[xahau.Hash256]Pending{}
	}
	m.list[p.ID] = p
	return nil
}

// Remove implements Journal.
func (m *MemoryJournal) Remove(_ context.Context, id xahau.Hash256) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.list, id)
	return nil
}

// Load implements Journal.
func (m *MemoryJournal) Load(context.Context) ([]Pending, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Pending
	for _, p := range m.list {
		list = append(list, p)
	}
	return list, nil
}

// DirJournal is a Journal of one file for each transaction in a folder of its
// own, which must exist.
type DirJournal string

const pendingSuffix = ".tx.json"

func (d DirJournal) file(id xahau.Hash256) string {
	return filepath.Join(string(d), id.String()+pendingSuffix)
}

// Save implements Journal.
func (d DirJournal) Save(_ context.Context, p Pending) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save transaction %s: %w", p.ID, err)
		}
	}()
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(string(d), "saving-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // of no effect once renamed
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), d.file(p.ID)); err != nil {
		return err
	}
	return d.sync()
}

// sync makes what happened in the folder durable.
func (d DirJournal) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Remove implements Journal.
func (d DirJournal) Remove(_ context.Context, id xahau.Hash256) error {
	if err := os.Remove(d.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget transaction %s: %w", id, err)
	}
	return nil
}

// Load implements Journal.
func (d DirJournal) Load(context.Context) ([]Pending, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, fmt.Errorf("pending transactions: %w", err)
	}
	var list []Pending
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), pendingSuffix) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(string(d), e.Name()))
		if err != nil {
			return nil, fmt.Errorf("pending transactions: %w", err)
		}
		p, err := parsePending(b)
		if err != nil {
			return nil, fmt.Errorf("pending transaction %s: %w", e.Name(), err)
		}
		list = append(list, p)
	}
	return list, nil
}

// parsePending reads a Pending and checks that it is one.
func parsePending(b []byte) (Pending, error) {
	var p Pending
	if err := json.Unmarshal(b, &p); err != nil {
		return Pending{}, err
	}
	return p, p.check()
}

func (p Pending) check() error {
	switch {
	case xahau.BlobID(p.Blob) != p.ID:
		return errors.New("the transaction does not have this hash")
	case p.Last == 0:
		return errors.New("the transaction has no last ledger")
	}
	return nil
}
