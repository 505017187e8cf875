package mount

import (
	"sync"

	"evernode/hotpocket/statefs/volume"
)

// handle is an open file as the kernel names it by a number.
type handle struct {
	ino   volume.Ino
	file  file
	write bool
	both  bool // open for reading and writing, so that it can be mapped shared
	// backed: the kernel reads and writes the backing file with this key itself.
	backed bool
	key    uint64
}

// openDir is an open folder.
type openDir struct {
	mu   sync.Mutex // held while it is read
	list listing
}

// backing is what the kernel registered for one backing file.
type backing struct {
	id int32
	// refused: the kernel did not take it, so all who have it open are served.
	refused bool
	refs    int
}

// handles holds what is open.
type handles struct {
	mu     sync.Mutex
	list   []*handle
	free   []uint32
	writes int           // handles that are open for writing
	calm   chan struct{} // closed and replaced when writes falls to 0
	backs  map[uint64]*backing

	dirs     map[uint64]*openDir
	nextDir  uint64
	register func(fd int) (int32, error)
	forget   func(id int32)
}

func newHandles(register func(fd int) (int32, error), forget func(id int32)) *handles {
	return &handles{
		calm: make(chan struct{}), backs: make(map[uint64]*backing), dirs: make(map[uint64]*openDir),
		register: register, forget: forget,
	}
}

// add takes in an open file and returns its number and, when h.backed, what the
// kernel registered for its backing file. Where the kernel can or will not, it
// clears h.backed.
func (t *handles) add(h *handle) (fh uint64, id int32) {
	fd, key := -1, uint64(0)
	if t.register != nil {
		fd, key = h.file.Backing()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if fd >= 0 {
		h.key = key
		b := t.backs[key]
		if b == nil {
			b = new(backing)
			var err error
			// Under the lock: a second open of the file must find it.
			if b.id, err = t.register(fd); err != nil {
				b.refused = true
			}
			t.backs[key] = b
		}
		b.refs++
		id = b.id
		h.backed = !b.refused
	} else {
		h.key = noBacking
	}
	if h.write {
		t.writes++
	}
	if n := len(t.free); n > 0 {
		fh = uint64(t.free[n-1])
		t.free = t.free[:n-1]
		t.list[fh] = h
		return fh, id
	}
	t.list = append(t.list, h)
	return uint64(len(t.list) - 1), id
}

// noBacking is the key of handles without a backing file.
const noBacking = ^uint64(0)

func (t *handles) get(fh uint64) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	if fh >= uint64(len(t.list)) {
		return nil
	}
	return t.list[fh]
}

// remove forgets a handle. done, when not nil, has to be called after its file
// is closed: only then it counts as gone.
func (t *handles) remove(fh uint64) (h *handle, done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if fh >= uint64(len(t.list)) || t.list[fh] == nil {
		return nil, nil
	}
	h = t.list[fh]
	t.list[fh] = nil
	t.free = append(t.free, uint32(fh))
	if h.key != noBacking {
		b := t.backs[h.key]
		if b.refs--; b.refs == 0 {
			delete(t.backs, h.key)
			if !b.refused {
				t.forget(b.id)
			}
		}
	}
	return h, func() {
		if !h.write {
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.writes--; t.writes == 0 {
			close(t.calm)
			t.calm = make(chan struct{})
		}
	}
}

// writers returns how many files are open for writing and a channel that is
// closed when there is none any more.
func (t *handles) writers() (int, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.writes, t.calm
}

func (t *handles) addDir(l listing) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.nextDir++
	t.dirs[t.nextDir] = &openDir{list: l}
	return t.nextDir
}

func (t *handles) dir(fh uint64) *openDir {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dirs[fh]
}

func (t *handles) removeDir(fh uint64) {
	t.mu.Lock()
	d := t.dirs[fh]
	delete(t.dirs, fh)
	t.mu.Unlock()
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list.Close()
}

// drop closes everything that is open; the kernel will not do it any more.
func (t *handles) drop() {
	t.mu.Lock()
	n := uint64(len(t.list))
	var dirs []uint64
	for fh := range t.dirs {
		dirs = append(dirs, fh)
	}
	t.mu.Unlock()
	for fh := range n {
		if h, done := t.remove(fh); h != nil {
			h.file.Close()
			done()
		}
	}
	for _, fh := range dirs {
		t.removeDir(fh)
	}
}
