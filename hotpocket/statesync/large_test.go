package statesync

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"evernode/hotpocket/key"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
)

// vast is a state that is too large to keep: it is made up when it is asked for,
// and nothing of what is staged is kept.
type vast struct {
	folders, files int // files in each folder
	groups         int // of the file "large"
	dirs           map[digest.Hash]int
	root           digest.Hash
	node           []byte
	bytes          uint64
	value          digest.Hash // content of "large"
	list           []byte
	taken          atomic.Int64
	pause          sync.RWMutex // write-held while memory is measured
}

func (v *vast) content(folder, file int) []byte {
	b := make([]byte, 600)
	binary.BigEndian.PutUint64(b, uint64(folder)<<32|uint64(file))
	return b
}

func (v *vast) folder(i int) (node []byte, pages [][]byte) {
	entries := make([]statefs.Entry, v.files)
	for j := range entries {
		entries[j] = statefs.Entry{Name: fmt.Sprintf("file%08d", j), Kind: statefs.KindFile, Mode: 0o644, Size: 600, Hash: digest.Sum(v.content(i, j))}
	}
	node, pages, err := statefs.EncodeDir(entries, uint64(v.files), uint64(v.files)*600)
	if err != nil {
		panic(err)
	}
	return node, pages
}

const vastGroup = 64 << 10

func newVast(folders, files, groups int) *vast {
	v := &vast{folders: folders, files: files, groups: groups, dirs: make(map[digest.Hash]int)}
	block := make([]byte, vastGroup)
	values := make([]digest.Hash, groups)
	for i := range values {
		values[i] = statefs.GroupValue(uint64(groups)*vastGroup, i, block)
		v.list = append(v.list, values[i][:]...)
	}
	v.value = statefs.FoldGroups(values)
	var entries []statefs.Entry
	for i := range folders {
		node, _ := v.folder(i)
		h := statefs.HashDir(node)
		v.dirs[h] = i
		entries = append(entries, statefs.Entry{Name: fmt.Sprintf("dir%05d", i), Kind: statefs.KindDir, Mode: 0o755, Hash: h})
	}
	entries = append(entries, statefs.Entry{Name: "large", Kind: statefs.KindFile, Mode: 0o644, Size: uint64(groups) * vastGroup, Hash: v.value})
	v.bytes = uint64(folders*files*600 + groups*vastGroup)
	var err error
	var pages [][]byte
	if v.node, pages, err = statefs.EncodeDir(entries, uint64(folders*(files+1)+1), v.bytes); err != nil || pages != nil {
		panic("the root is not in one piece")
	}
	v.root = statefs.HashDir(v.node)
	return v
}

func (v *vast) Object(_ context.Context, ref statefs.Ref) ([]byte, error) {
	v.pause.RLock()
	defer v.pause.RUnlock()
	var folder, file int
	fmt.Sscanf(ref.Path, "dir%05d/file%08d", &folder, &file)
	switch ref.Kind {
	case statefs.RefDir:
		if ref.Hash == v.root {
			return v.node, nil
		}
		node, _ := v.folder(v.dirs[ref.Hash])
		return node, nil
	case statefs.RefPage:
		_, pages := v.folder(folder)
		for _, p := range pages {
			if statefs.HashPage(p) == ref.Hash {
				return p, nil
			}
		}
	case statefs.RefList:
		return v.list, nil
	case statefs.RefData:
		if ref.Path == "large" {
			return make([]byte, vastGroup), nil
		}
		return v.content(folder, file), nil
	}
	return nil, statefs.ErrNotFound
}

func (v *vast) Stage(context.Context) (statefs.Staging, error) { return v, nil }
func (v *vast) Agreed() statefs.Version                        { return statefs.Version{} }
func (v *vast) Patch() []byte                                  { return nil }
func (v *vast) Close() error                                   { return nil }
func (v *vast) HasTree(string, digest.Hash) bool               { return false }
func (v *vast) HasFile(digest.Hash) bool                       { return false }
func (v *vast) Node(h digest.Hash) ([]byte, bool)              { return v.node, h == v.root && v.taken.Load() > 0 }

func (v *vast) PutNode(kind statefs.RefKind, h digest.Hash, data []byte) error {
	if kind == statefs.RefDir && statefs.HashDir(data) != h || kind == statefs.RefPage && statefs.HashPage(data) != h {
		return statefs.ErrMismatch
	}
	return nil
}

func (v *vast) PutFile(h digest.Hash, data []byte) error {
	if digest.Sum(data) != h {
		return statefs.ErrMismatch
	}
	v.taken.Add(int64(len(data)))
	return nil
}

func (v *vast) OpenFile(_ context.Context, _ string, _ uint64, _ digest.Hash, list []byte) (statefs.StagedFile, error) {
	if !bytes.Equal(list, v.list) {
		return nil, statefs.ErrMismatch
	}
	return &vastFile{v: v}, nil
}

func (v *vast) Switch(context.Context, statefs.Version, []byte) error {
	// A little comes twice, where a peer was slow.
	if n := uint64(v.taken.Load()); n < v.bytes || n > v.bytes+v.bytes/10 {
		return fmt.Errorf("%d bytes were put, the state has %d", n, v.bytes)
	}
	return nil
}

// vastFile takes runs of groups, as a backend may.
type vastFile struct {
	v    *vast
	mu   sync.Mutex
	runs int
}

func (f *vastFile) Missing() []uint32 {
	all := make([]uint32, f.v.groups)
	for i := range all {
		all[i] = uint32(i)
	}
	return all
}

func (f *vastFile) Put(_ uint32, data []byte) error { return f.PutRun(0, data) }

func (f *vastFile) PutRun(_ uint32, data []byte) error {
	for _, b := range data {
		if b != 0 {
			return statefs.ErrMismatch
		}
	}
	f.v.taken.Add(int64(len(data)))
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(data) > vastGroup {
		f.runs++
	}
	return nil
}

func (f *vastFile) Close() error {
	if f.runs == 0 {
		return errors.New("groups came one by one only")
	}
	return nil
}

// A sync takes no more memory for a large state than for a small one: what is
// known to be missing is bounded, however much is.
func TestMemoryDoesNotGrowWithTheState(t *testing.T) {
	live := func(v *vast) uint64 {
		// What is made up meanwhile would count as alive.
		v.pause.Lock()
		defer v.pause.Unlock()
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	measure := func(v *vast) (peak uint64, waiting int) {
		before, looks := live(v), 0
		server := NewServer(ServerConfig{State: struct{ Source }{v}})
		c := NewClient(Config{
			State: struct{ Target }{v}, Transport: local{server}, Peers: func() []key.Public { return []key.Public{peerKey(1), peerKey(2)} },
			Progress: func(p Progress) {
				waiting = max(waiting, p.Waiting)
				if v.bytes > 0 && int(p.DoneBytes*20/v.bytes) > looks {
					looks++
					peak = max(peak, live(v))
				}
			},
		})
		syncTo(t, c, statefs.Version{Seq: 1, Root: v.root})
		if looks < 10 {
			t.Errorf("looked at %d times", looks)
		}
		return peak - min(before, peak), waiting
	}
	small, _ := measure(newVast(10, 1000, 64))
	large, waiting := measure(newVast(100, 2000, 4096))
	t.Logf("live memory %d KiB for a small state, %d KiB for one of 200,000 files and 390 MB; at most %d pieces known to be missing", small>>10, large>>10, waiting)
	if waiting > 2*maxQueue {
		t.Errorf("%d pieces were known to be missing at a time", waiting)
	}
	if large > 64<<20 {
		t.Errorf("a large state takes %d bytes", large)
	}
}

// local is a transport without a network.
type local struct{ s *Server }

func (l local) Request(ctx context.Context, to key.Public, payload []byte) ([]byte, error) {
	return l.s.Serve(ctx, to, payload)
}

func (l local) RequestInto(ctx context.Context, to key.Public, payload, buf []byte) ([]byte, error) {
	reply, err := l.s.Serve(ctx, to, payload)
	if err == nil && len(reply) <= cap(buf) {
		buf = append(buf[:0], reply...)
		l.s.Recycle(reply)
		return buf, nil
	}
	return reply, err
}
