package statesync

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// Viewer is the part of a statefs.State by which a version is kept at hand while
// peers fetch it. A Source that has it lets them come to an end although the
// state moves on.
type Viewer interface {
	Agreed() statefs.Version
	View(ctx context.Context) (statefs.View, error)
}

const (
	// maxPins is how many versions are kept for peers at a time.
	maxPins = 2
	// pinIdle is how long after a peer's last request for it a version is kept,
	// pinLife how long at most.
	pinIdle = 10 * time.Second
	pinLife = time.Hour
	// maxPinnedLists bounds the group values that are kept of files of a version
	// which the state itself does not hand out any more: 8 MiB.
	maxPinnedLists = 256 << 10
)

// pins are the versions kept at hand.
type pins struct {
	source Viewer // nil: nothing can be kept

	mu     sync.Mutex
	closed bool
	at     map[digest.Hash]*pin
}

// pin is one version.
type pin struct {
	view  statefs.View
	made  time.Time
	timer *time.Timer
	users int
	done  bool // closed when the last user leaves

	mu     sync.Mutex
	lists  map[digest.Hash][]digest.Hash // group values of files that were checked
	values int
}

// use returns the pin of a version, making one if that is the agreed version and
// there is room; nil when the version is not kept. The caller calls release.
func (p *pins) use(ctx context.Context, root digest.Hash) *pin {
	if p.source == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.at[root]
	if x == nil {
		if p.closed || len(p.at) >= maxPins || p.source.Agreed().Root != root {
			return nil
		}
		view, err := p.source.View(ctx)
		if err != nil {
			return nil // it is served as long as it is at hand by itself
		}
		if view.Version().Root != root {
			view.Close()
			return nil
		}
		x = &pin{view: view, made: time.Now()}
		x.timer = time.AfterFunc(pinIdle, func() { p.drop(root, x) })
		if p.at == nil {
			p.at = make(map[digest.Hash]*pin)
		}
		p.at[root] = x
	} else if time.Since(x.made) < pinLife {
		x.timer.Reset(pinIdle)
	}
	x.users++
	return x
}

func (p *pins) release(x *pin) {
	if x == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	x.users--
	if x.done && x.users == 0 {
		x.view.Close()
	}
}

func (p *pins) drop(root digest.Hash, x *pin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at[root] == x {
		delete(p.at, root)
	}
	if x.done {
		return
	}
	x.done = true
	x.timer.Stop()
	if x.users == 0 {
		x.view.Close()
	}
}

func (p *pins) close() {
	p.mu.Lock()
	p.closed = true
	all := make(map[digest.Hash]*pin, len(p.at))
	for root, x := range p.at {
		all[root] = x
	}
	p.mu.Unlock()
	for root, x := range all {
		p.drop(root, x)
	}
}

// file returns a piece of a file of the version, read from its folder, for a
// state that finds only files of its newest versions. Everything is checked, so
// that no peer is sent something wrong.
func (x *pin) file(ctx context.Context, ref statefs.Ref) ([]byte, error) {
	if ref.Kind != statefs.RefData && ref.Kind != statefs.RefList {
		return nil, statefs.ErrNotFound
	}
	dir, err := unix.Open(x.view.Dir(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a kept version: %w", err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, ref.Path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, statefs.ErrNotFound
	}
	f := os.NewFile(uintptr(fd), ref.Path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || uint64(st.Size()) > statefs.MaxFileSize {
		return nil, statefs.ErrNotFound
	}
	size := uint64(st.Size())
	group, count := statefs.Groups(size)
	if count == 1 {
		data, err := readAt(f, 0, size)
		if err != nil || ref.Kind != statefs.RefData || ref.Index != 0 || digest.Sum(data) != ref.Hash {
			return nil, statefs.ErrNotFound
		}
		return data, nil
	}
	if int64(ref.Index) >= int64(count) {
		return nil, statefs.ErrNotFound
	}
	values, err := x.list(ctx, f, size, ref.Hash)
	if err != nil {
		return nil, err
	}
	if len(values) != count {
		return nil, statefs.ErrNotFound
	}
	if ref.Kind == statefs.RefList {
		data := make([]byte, 0, count*digest.Size)
		for i := range values {
			data = append(data, values[i][:]...)
		}
		return data, nil
	}
	off := uint64(ref.Index) * group
	data, err := readAt(f, off, min(group, size-off))
	if err != nil || statefs.GroupValue(size, int(ref.Index), data) != values[ref.Index] {
		return nil, statefs.ErrNotFound
	}
	return data, nil
}

// list returns the group values of a file, which are computed once.
func (x *pin) list(ctx context.Context, f *os.File, size uint64, hash digest.Hash) ([]digest.Hash, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if v, ok := x.lists[hash]; ok {
		return v, nil
	}
	group, count := statefs.Groups(size)
	values := make([]digest.Hash, count)
	for i := range values {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		off := uint64(i) * group
		data, err := readAt(f, off, min(group, size-off))
		if err != nil {
			return nil, statefs.ErrNotFound
		}
		values[i] = statefs.GroupValue(size, i, data)
	}
	if statefs.FoldGroups(values) != hash {
		return nil, statefs.ErrNotFound
	}
	if x.values+count > maxPinnedLists {
		x.lists, x.values = nil, 0
	}
	if x.lists == nil {
		x.lists = make(map[digest.Hash][]digest.Hash)
	}
	x.lists[hash] = values
	x.values += count
	return values, nil
}

func readAt(f *os.File, off, n uint64) ([]byte, error) {
	data := make([]byte, n)
	if _, err := f.ReadAt(data, int64(off)); err != nil && err != io.EOF {
		return nil, err
	} else if err == io.EOF && n > 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return data, nil
}
