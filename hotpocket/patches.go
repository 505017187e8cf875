package hotpocket

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"evernode/hotpocket/config"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
)

// errNoPatch is the error of a patch.cfg whose content is not at hand.
var errNoPatch = errors.New("content of the agreed patch.cfg is not at hand")

// keptPatches is how many versions of patch.cfg are kept, in memory and on disk.
const keptPatches = 8

// patches are the versions of patch.cfg by their hash: those that runs of this
// node produced, those that were fetched, and the one in force. They are kept in
// a folder too, because after a crash the state may still hold an older one
// than the last ledger put in force.
type patches struct {
	dir string

	mu      sync.Mutex
	current digest.Hash
	content map[digest.Hash][]byte
	order   []digest.Hash
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
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, fmt.Errorf("read an agreed configuration: %w", err)
		}
		p.put(statefs.HashPatch(b), b)
	}
	return p, nil
}

func (p *patches) inForce() digest.Hash {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// put keeps a version.
func (p *patches) put(h digest.Hash, content []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.content[h]; ok {
		return
	}
	p.content[h] = content
	p.order = append(p.order, h)
	if len(p.order) > keptPatches {
		old := p.order[0]
		if old == p.current {
			old = p.order[1]
			p.order[1] = p.order[0]
		}
		p.order = p.order[1:]
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

// apply makes a version the one in force, on disk first, and returns the
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
	if err := config.WriteFile(p.file(h), content, 0o600); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.current = h
	p.mu.Unlock()
	return conf.Apply(patch), nil
}
