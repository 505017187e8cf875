package mount

import (
	"container/list"
	"fmt"
	"path/filepath"
	"sync"

	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/volume"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// shown is a version that the read-only mount shows. Views of the same version
// share it.
type shown struct {
	number uint64
	snap   *volume.Snapshot

	mu   sync.Mutex
	refs int // views, open files, and one as long as it is in the mount
}

// hold adds a reference and reports whether there was one.
func (s *shown) hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs == 0 {
		return false
	}
	s.refs++
	return true
}

// release takes a reference back; the last lets go of the version.
func (s *shown) release() error {
	s.mu.Lock()
	s.refs--
	last := s.refs == 0
	s.mu.Unlock()
	if !last {
		return nil
	}
	return s.snap.Close()
}

// openSnapFiles is how many files of versions are kept open for reading.
const openSnapFiles = 256

// snapFiles keeps files of versions open between reads.
type snapFiles struct {
	limit int
	mu    sync.Mutex
	open  map[*volume.Node]*list.Element // of *snapFile
	order *list.List                     // last used first
}

// snapFile is an open file of a version, which it holds.
type snapFile struct {
	node  *volume.Node
	file  *volume.SnapFile
	shown *shown
	refs  int
	gone  bool // to be closed when nobody reads it any more
}

func newSnapFiles(limit int) *snapFiles {
	return &snapFiles{limit: limit, open: make(map[*volume.Node]*list.Element), order: list.New()}
}

// get returns the open file of a node; put gives it back.
func (c *snapFiles) get(n *roNode) (*snapFile, error) {
	node := n.key.node
	c.mu.Lock()
	if e := c.open[node]; e != nil {
		c.order.MoveToFront(e)
		f := e.Value.(*snapFile)
		f.refs++
		c.mu.Unlock()
		return f, nil
	}
	c.mu.Unlock()
	if !n.shown.hold() {
		return nil, unix.ESTALE
	}
	opened, err := n.shown.snap.Open(node)
	if err != nil {
		n.shown.release()
		return nil, err
	}
	f := &snapFile{node: node, file: opened, shown: n.shown, refs: 1}
	c.mu.Lock()
	if e := c.open[node]; e != nil {
		// Somebody was faster.
		other := e.Value.(*snapFile)
		other.refs++
		c.mu.Unlock()
		f.close()
		return other, nil
	}
	c.open[node] = c.order.PushFront(f)
	var old []*snapFile
	for e := c.order.Back(); e != nil && len(c.open) > c.limit; {
		prev := e.Prev()
		if x := e.Value.(*snapFile); x.refs == 0 {
			c.remove(e)
			old = append(old, x)
		}
		e = prev
	}
	c.mu.Unlock()
	for _, x := range old {
		x.close()
	}
	return f, nil
}

// remove takes a file out. The caller holds mu.
func (c *snapFiles) remove(e *list.Element) {
	f := e.Value.(*snapFile)
	f.gone = true
	c.order.Remove(e)
	delete(c.open, f.node)
}

func (c *snapFiles) put(f *snapFile) {
	c.mu.Lock()
	f.refs--
	last := f.gone && f.refs == 0
	c.mu.Unlock()
	if last {
		f.close()
	}
}

func (f *snapFile) close() {
	f.file.Close()
	f.shown.release()
}

// drop closes the file of a node.
func (c *snapFiles) drop(node *volume.Node) {
	c.dropIf(func(f *snapFile) bool { return f.node == node })
}

// dropVersion closes the files that hold a version.
func (c *snapFiles) dropVersion(s *shown) {
	c.dropIf(func(f *snapFile) bool { return f.shown == s })
}

func (c *snapFiles) dropIf(is func(*snapFile) bool) {
	c.mu.Lock()
	var old []*snapFile
	for e := c.order.Front(); e != nil; {
		next := e.Next()
		if f := e.Value.(*snapFile); is(f) {
			c.remove(e)
			if f.refs == 0 {
				old = append(old, f)
			}
		}
		e = next
	}
	c.mu.Unlock()
	for _, f := range old {
		f.close()
	}
}

// roMount is the mount of read-only versions.
type roMount struct {
	*roFS
	dev  *device
	path string

	viewMu sync.Mutex
	next   uint64
	// current is the version that was shown last. It stays in the mount after
	// its last view, so that the kernel keeps what the next one has in common
	// with it.
	current *shown
	views   map[*shown]int
}

func mountRO(path string, fs *roFS) (*roMount, error) {
	dev, err := mountAt(path, fs, fs.log, readOnly)
	if err != nil {
		return nil, err
	}
	return &roMount{roFS: fs, dev: dev, path: path, views: make(map[*shown]int)}, nil
}

// show opens a view of the agreed version. snapshot pins it.
func (m *roMount) show(agreed statefs.Version, snapshot func() (*volume.Snapshot, error)) (*shown, error) {
	m.viewMu.Lock()
	defer m.viewMu.Unlock()
	s := m.current
	if s == nil || s.snap.Version() != agreed {
		snap, err := snapshot()
		if err != nil {
			return nil, err
		}
		m.next++
		s = &shown{number: m.next, snap: snap, refs: 1}
		old := m.current
		m.current = s
		m.mu.Lock()
		m.shown[versionName(s.number)] = s
		m.mu.Unlock()
		// The one before stays until the new one has been looked at, unless it
		// is the second.
		m.retire(func(x *shown) bool { return x != s && x != old })
	}
	if !s.hold() {
		return nil, fmt.Errorf("view %d is closed", s.number)
	}
	m.views[s]++
	return s, nil
}

// done closes a view.
func (m *roMount) done(s *shown) error {
	m.viewMu.Lock()
	defer m.viewMu.Unlock()
	if m.views[s]--; m.views[s] == 0 {
		delete(m.views, s)
	}
	err := s.release()
	m.retire(func(x *shown) bool { return x != m.current })
	return err
}

// retire takes versions without a view out of the mount. The caller holds viewMu.
func (m *roMount) retire(which func(*shown) bool) {
	var out []*shown
	m.mu.Lock()
	for name, s := range m.shown {
		if m.views[s] == 0 && which(s) {
			delete(m.shown, name)
			out = append(out, s)
		}
	}
	m.mu.Unlock()
	for _, s := range out {
		if st := m.dev.server.EntryNotify(fuse.FUSE_ROOT_ID, versionName(s.number)); st != fuse.OK && st != fuse.ENOENT {
			m.log.Error("the kernel does not forget an old version", "error", unix.Errno(st))
		}
		m.files.dropVersion(s)
		if err := s.release(); err != nil {
			m.log.Error("cannot let go of an old version", "error", err)
		}
	}
}

// forget takes every version without a view out of the mount, so that it does
// not hold what is agreed no longer.
func (m *roMount) forget() {
	m.viewMu.Lock()
	defer m.viewMu.Unlock()
	if m.current != nil && m.views[m.current] == 0 {
		m.current = nil
	}
	m.retire(func(*shown) bool { return true })
}

// keepOld is how many versions behind the agreed one the version may be that was
// shown last. It holds its files on the disk.
const keepOld = 8

// trim lets go of the version that was shown last when nobody looks at it and it
// is old.
func (m *roMount) trim(agreed uint64) {
	m.viewMu.Lock()
	old := m.current != nil && m.views[m.current] == 0 && m.current.snap.Version().Seq+keepOld < agreed
	m.viewMu.Unlock()
	if old {
		m.forget()
	}
}

func (m *roMount) dir(s *shown) string {
	return filepath.Join(m.path, versionName(s.number), stateName)
}

// unmount ends the mount and all that it shows.
func (m *roMount) unmount() error {
	if err := m.dev.unmount(); err != nil {
		return err
	}
	m.files.dropIf(func(*snapFile) bool { return true })
	m.viewMu.Lock()
	defer m.viewMu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.shown {
		for ; m.views[s] > 0; m.views[s]-- {
			s.release()
		}
		s.release()
	}
	clear(m.shown)
	clear(m.views)
	m.current = nil
	return nil
}
