package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"

	"golang.org/x/sys/unix"
)

// stageStore keeps what a Staging has fetched: folder nodes in a file of its
// own, which also says which objects hold fetched files. It outlives the Staging
// and the process. What the file says is believed only where it can be checked.
type stageStore struct {
	mu    sync.Mutex // guards what follows
	f     *os.File
	size  int64 // of what is written
	buf   []byte
	nodes map[digest.Hash]stageNode
	files map[digest.Hash]stageFile
	parts map[digest.Hash]stageFile
	open  *Staging
}

type stageNode struct {
	off  int64 // of the data; behind size: in buf
	n    int
	kind statefs.RefKind
}

type stageFile struct {
	obj  uint64
	size uint64
}

// Records are framed as those of the log, each with a check of its own.
const (
	recNode = 'n' // u8 kind of the Ref, and the encoded folder or page
	recFile = 'f' // hash, size and object of a whole file
	recPart = 'o' // the same of one on its way
)

// stageBuffer is how much is collected before it is written. A crash costs what
// is in it.
const stageBuffer = 64 << 10

// openStage reads what an earlier process left. root is the agreed version:
// objects that it has are no longer staged.
func (v *Volume) openStage(root *node, trusted bool) error {
	s := &stageStore{}
	v.stage = s
	s.reset()
	var err error
	if s.f, err = os.OpenFile(filepath.Join(v.cfg.Dir, "stage"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	used := make(map[uint64]bool)
	eachFile(root, "", func(_ string, n *node) error {
		n.objects(func(id, _ uint64) { used[id] = true })
		return nil
	})
	size, _, err := readRecords(s.f, false, func(kind byte, p []byte, end int64) error {
		r := wire.NewReader(p)
		switch kind {
		case recNode:
			if len(p) < 2 {
				return nil
			}
			k := statefs.RefKind(p[0])
			h := statefs.HashDir(p[1:])
			if k == statefs.RefPage {
				h = statefs.HashPage(p[1:])
			}
			s.nodes[h] = stageNode{end - 8 - int64(len(p)) + 1, len(p) - 1, k}
		case recFile, recPart:
			var h digest.Hash
			r.Fixed(h[:])
			f := stageFile{size: r.U64(), obj: r.U64()}
			if r.Err() != nil || used[f.obj] || packed(f.obj) && f.size > packBelow {
				return nil
			}
			if kind == recPart {
				s.parts[h] = f
			} else {
				delete(s.parts, h)
				s.files[h] = f
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read what was fetched before: %w", err)
	}
	s.size = size
	if err := s.f.Truncate(size); err != nil {
		return err
	}
	for h, f := range s.parts {
		var st unix.Stat_t
		if v.store.stat(f.obj, &st) != nil {
			delete(s.parts, h)
		}
	}
	for h, f := range s.files {
		var st unix.Stat_t
		good := false
		if packed(f.obj) {
			good = v.holds(f.obj, f.size) == nil
		} else {
			good = v.store.stat(f.obj, &st) == nil && uint64(st.Size) == f.size
		}
		if good && !trusted {
			good = v.proveFile(context.Background(), &node{obj: f.obj, size: f.size, hash: h}) == nil
		}
		if !good {
			delete(s.files, h)
		}
	}
	return nil
}

func (s *stageStore) reset() {
	s.nodes = make(map[digest.Hash]stageNode)
	s.files = make(map[digest.Hash]stageFile)
	s.parts = make(map[digest.Hash]stageFile)
}

// objects returns the objects that are kept for a Staging, with their sizes.
func (s *stageStore) objects() map[uint64]uint64 {
	m := make(map[uint64]uint64)
	for _, f := range s.files {
		m[f.obj] = f.size
	}
	for _, f := range s.parts {
		m[f.obj] = f.size
	}
	return m
}

// add appends a record. The caller holds mu.
func (s *stageStore) add(kind byte, payload []byte) (off int64, err error) {
	off = s.size + int64(len(s.buf)) + 5
	s.buf = wire.AppendU32(s.buf, uint32(len(payload)))
	s.buf = append(append(s.buf, kind), payload...)
	s.buf = wire.AppendU64(s.buf, checkOf(0, kind, payload))
	if len(s.buf) >= stageBuffer {
		err = s.write()
	}
	return off, err
}

// write writes what was collected. The caller holds mu.
func (s *stageStore) write() error {
	if len(s.buf) == 0 {
		return nil
	}
	if _, err := s.f.WriteAt(s.buf, s.size); err != nil {
		return fmt.Errorf("write what was fetched: %w", err)
	}
	s.size += int64(len(s.buf))
	s.buf = s.buf[:0]
	return nil
}

func (s *stageStore) addFile(kind byte, h digest.Hash, f stageFile) error {
	b := append(make([]byte, 0, digest.Size+16), h[:]...)
	b = wire.AppendU64(b, f.size)
	b = wire.AppendU64(b, f.obj)
	_, err := s.add(kind, b)
	return err
}

func (s *stageStore) addNode(kind statefs.RefKind, h digest.Hash, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.nodes[h]; ok {
		return nil
	}
	b := append(make([]byte, 0, len(data)+1), byte(kind))
	off, err := s.add(recNode, append(b, data...))
	if err != nil {
		return err
	}
	s.nodes[h] = stageNode{off + 1, len(data), kind}
	return nil
}

// node returns a folder node or page.
func (s *stageStore) node(h digest.Hash) ([]byte, error) {
	s.mu.Lock()
	n, ok := s.nodes[h]
	if ok && n.off+int64(n.n) > s.size {
		if err := s.write(); err != nil {
			s.mu.Unlock()
			return nil, err
		}
	}
	s.mu.Unlock()
	if !ok {
		return nil, statefs.ErrNotFound
	}
	b := make([]byte, n.n)
	if _, err := s.f.ReadAt(b, n.off); err != nil {
		return nil, err
	}
	got := statefs.HashDir(b)
	if n.kind == statefs.RefPage {
		got = statefs.HashPage(b)
	}
	if got != h {
		return nil, fmt.Errorf("fetched folder %s on disk: %w", h.Short(), statefs.ErrNotFound)
	}
	return b, nil
}

// clear forgets everything. Objects that no version has taken are removed.
func (s *stageStore) clear(v *Volume, taken map[uint64]bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, size := range s.objects() {
		if !taken[id] {
			v.reap(id, size)
		}
	}
	s.reset()
	s.size, s.buf = 0, nil
	return s.f.Truncate(0)
}

func (s *stageStore) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.write(), s.f.Close())
}
