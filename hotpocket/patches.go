package hotpocket

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
)

// errNoPatch is the error of a patch.cfg whose content is not at hand.
var errNoPatch = errors.New("content of the agreed patch.cfg is not at hand")

// keptPatches and keptPatchBytes are how many versions of patch.cfg are kept, in
// memory and on disk: a node that joins late needs all that it comes past.
const (
	keptPatches    = 1024
	keptPatchBytes = 8 << 20
)

// patches are the versions of patch.cfg by their hash: those that runs of this
// node produced, those that were fetched, and the one in force. They are kept in
// a folder too, from the moment a result of this node names them, because after
// a crash the state may still hold an older one than the last ledger put in
// force.
type patches struct {
	dir string

	mu      sync.Mutex
	current digest.Hash
	content map[digest.Hash][]byte
	order   []digest.Hash // oldest first
	bytes   int
}

func openPatches(dir string) (*patches, error) {
	p := &patches{dir: dir, content: make(map[digest.Hash][]byte)}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of agreed configurations: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("folder of agreed configurations: %w", err)
	}
	type kept struct {
		hash    digest.Hash
		content []byte
		at      time.Time
	}
	var all []kept
	for _, f := range files {
		name := filepath.Join(dir, f.Name())
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read an agreed configuration: %w", err)
		}
		h := statefs.HashPatch(b)
		if h.String() != f.Name() { // half written
			if err := os.Remove(name); err != nil {
				return nil, fmt.Errorf("remove what is no agreed configuration: %w", err)
			}
			continue
		}
		info, err := f.Info()
		if err != nil {
			return nil, fmt.Errorf("read an agreed configuration: %w", err)
		}
		all = append(all, kept{h, b, info.ModTime()})
	}
	slices.SortFunc(all, func(a, b kept) int { return a.at.Compare(b.at) })
	for _, k := range all {
		p.add(k.hash, k.content)
	}
	return p, nil
}

func (p *patches) inForce() digest.Hash {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// put keeps a version; when it returns it is on disk.
func (p *patches) put(h digest.Hash, content []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.content[h]; ok {
		return nil
	}
	if err := config.WriteFile(p.file(h), content, 0o600); err != nil {
		return fmt.Errorf("keep a patch.cfg: %w", err)
	}
	p.add(h, content)
	return nil
}

// add notes a version that is on disk, and forgets the oldest ones.
func (p *patches) add(h digest.Hash, content []byte) {
	p.content[h] = content
	p.order = append(p.order, h)
	p.bytes += len(content)
	for len(p.order) > 2 && (len(p.order) > keptPatches || p.bytes > keptPatchBytes) {
		i := 0
		if p.order[0] == p.current {
			i = 1
		}
		old := p.order[i]
		p.order = slices.Delete(p.order, i, i+1)
		p.bytes -= len(p.content[old])
		delete(p.content, old)
		os.Remove(p.file(old))
	}
}

func (p *patches) get(h digest.Hash) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.content[h]
}

func (p *patches) file(h digest.Hash) string { return filepath.Join(p.dir, h.String()) }

// apply makes a version that is kept the one in force and returns the
// configuration with it.
func (p *patches) apply(conf *config.Config, h digest.Hash) (*config.Config, error) {
	content := p.get(h)
	if content == nil {
		return nil, errNoPatch
	}
	patch, err := config.ParsePatch(content)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.current = h
	p.mu.Unlock()
	return conf.Apply(patch), nil
}
