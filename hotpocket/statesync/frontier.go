package statesync

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"evernode/hotpocket/key"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
)

const (
	// maxQueue bounds the pieces that are known to be missing and wait to be
	// asked for.
	maxQueue = 4096
	// maxNodes bounds the folders, pages and lists of groups among them and under
	// way: each may bring much that is missing.
	maxNodes = 64
	// maxHeld is how many bytes of such content may be at hand before no more is
	// asked for, in encoded form.
	maxHeld = 32 << 20
	// maxLook bounds how many entries are looked at in one go.
	maxLook = 32 << 10
)

// item is a piece to fetch.
type item struct {
	statefs.Ref
	size   uint64      // of the file
	expect int         // bytes of the answer, about
	base   digest.Hash // what this node has in its place, zero: nothing
	file   *file       // RefData of a file with several groups
	epoch  int
	stored atomic.Bool

	// Owned by the loop.
	refused []key.Public
	whole   bool // a delta did not lead to it
}

// node reports whether more may turn out to be missing once it is here.
func (it *item) node() bool {
	return it.Kind == statefs.RefDir || it.Kind == statefs.RefPage || it.Kind == statefs.RefList
}

// cursor is a place in the wanted tree from which on it was not looked at: in a
// list of pages, of entries, or of the groups of a file.
type cursor struct {
	path    string
	pages   []digest.Hash
	old     []digest.Hash // the pages that this node has in their place
	entries []statefs.Entry
	base    []statefs.Entry // the entries that this node has in their place
	file    *file
	groups  []uint32
	held    int // bytes
}

// found is what a look at the frontier yields.
type found struct {
	items   []*item
	done    uint64 // bytes that need not be fetched
	entries uint64 // entries that were looked at or need not be
	held    int    // bytes that the frontier still holds
	end     bool   // nothing is left to look at
	blocked bool   // what it has asked for has to come before it can look on
}

// frontier walks the wanted tree, depth first, as far as its folders are here,
// and finds what is missing. It keeps only the path to where it is. One
// goroutine uses it at a time.
type frontier struct {
	staging statefs.Staging
	coming  *hashSet
	stack   []cursor
	held    int
}

func newFrontier(s statefs.Staging, coming *hashSet, root, base digest.Hash) *frontier {
	f := &frontier{staging: s, coming: coming}
	// A folder whose only entry is the wanted one.
	f.push(cursor{entries: []statefs.Entry{{Kind: statefs.KindDir, Hash: root}}, base: []statefs.Entry{{Kind: statefs.KindDir, Hash: base}}})
	return f
}

func (f *frontier) push(c cursor) {
	f.held += c.held
	f.stack = append(f.stack, c)
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// next looks on until it has found want pieces or as many nodes as it may.
// arrived is what came in since, to be looked at first.
func (f *frontier) next(arrived []cursor, want, nodes int) (found, error) {
	for _, c := range slices.Backward(arrived) {
		f.push(c)
	}
	var r found
	err := f.look(&r, want, nodes)
	r.held, r.end = f.held, len(f.stack) == 0
	return r, err
}

func (f *frontier) look(r *found, want, nodes int) error {
	for looked := 0; len(r.items) < want && len(f.stack) > 0 && looked < maxLook; looked++ {
		top := &f.stack[len(f.stack)-1]
		switch {
		case len(top.groups) > 0:
			r.items = append(r.items, top.file.item(top.groups[0]))
			top.groups = top.groups[1:]
		case len(top.pages) > 0:
			h, old := top.pages[0], top.old[0]
			data, here := f.staging.Node(h)
			if !here && nodes == 0 {
				r.blocked = true
				return nil
			}
			path := top.path
			top.pages, top.old = top.pages[1:], top.old[1:]
			if here {
				c, err := f.page(path, data, h, old)
				if err != nil {
					return err
				}
				f.push(c)
				continue
			}
			nodes--
			r.items = append(r.items, &item{Ref: statefs.Ref{Kind: statefs.RefPage, Path: path, Hash: h}, expect: 24 << 10, base: old})
		case len(top.entries) > 0:
			done, err := f.entry(r, top, &top.entries[0], &nodes)
			if r.blocked = !done && err == nil; !done {
				return err
			}
		default:
			f.held -= top.held
			*top = cursor{}
			f.stack = f.stack[:len(f.stack)-1]
		}
	}
	return nil
}

// entry looks at the next entry of a cursor. It reports false when it may not go
// on before what it has asked for is here.
func (f *frontier) entry(r *found, top *cursor, n *statefs.Entry, nodes *int) (bool, error) {
	path := top.path
	if n.Name != "" {
		path = join(path, n.Name)
	}
	var base *statefs.Entry
	if i, ok := slices.BinarySearchFunc(top.base, n.Name, func(e statefs.Entry, name string) int { return strings.Compare(e.Name, name) }); ok && top.base[i].Kind == n.Kind {
		base = &top.base[i]
	}
	var it *item
	switch n.Kind {
	case statefs.KindDir:
		if strings.Count(path, "/") > statefs.MaxDepth {
			return false, fmt.Errorf("%s: folders are nested deeper than %d", path, statefs.MaxDepth)
		}
		data, here := f.staging.Node(n.Hash)
		if here && f.staging.HasTree(path, n.Hash) {
			l, err := statefs.DecodeDir(data)
			if err != nil {
				return false, fmt.Errorf("folder %q: %w", path, err)
			}
			r.done += l.Bytes
			r.entries += l.Entries
			break
		}
		if here {
			c, err := f.dir(path, data, base)
			if err != nil {
				return false, err
			}
			top.entries = top.entries[1:]
			r.entries++
			f.push(c)
			return true, nil
		}
		if *nodes == 0 {
			return false, nil
		}
		it = &item{Ref: statefs.Ref{Kind: statefs.RefDir, Path: path, Hash: n.Hash}, expect: 4 << 10}
	case statefs.KindFile:
		if f.staging.HasFile(n.Hash) || f.coming.has(n.Hash) {
			r.done += n.Size
			break
		}
		it = &item{Ref: statefs.Ref{Kind: statefs.RefData, Path: path, Hash: n.Hash}, size: n.Size, expect: int(n.Size)}
		if _, count := statefs.Groups(n.Size); count > 1 {
			if *nodes == 0 {
				return false, nil
			}
			it.Kind, it.expect = statefs.RefList, count*digest.Size
			if base != nil && sameGroups(n.Size, base.Size) {
				it.file = &file{baseSize: base.Size}
			}
		}
		f.coming.add(n.Hash)
	}
	top.entries = top.entries[1:]
	r.entries++
	if it != nil {
		if base != nil {
			it.base = base.Hash
		}
		if it.node() {
			*nodes--
		}
		r.items = append(r.items, it)
	}
	return true, nil
}

// sameGroups reports whether files of two sizes are cut into groups at the same
// places.
func sameGroups(a, b uint64) bool {
	x, _ := statefs.Groups(a)
	y, _ := statefs.Groups(b)
	return x == y
}

// dir returns the cursor of a folder.
func (f *frontier) dir(path string, node []byte, base *statefs.Entry) (cursor, error) {
	l, err := statefs.DecodeDir(node)
	if err != nil {
		return cursor{}, fmt.Errorf("folder %q: %w", path, err)
	}
	c := cursor{path: path, pages: l.Pages, entries: l.Inline, held: len(node)}
	var mine statefs.Listing
	if base != nil {
		if b, ok := f.staging.Node(base.Hash); ok {
			if mine, err = statefs.DecodeDir(b); err != nil {
				mine = statefs.Listing{}
			}
		}
	}
	switch {
	case l.Pages == nil:
		c.base = mine.Inline
	case mine.Pages == nil:
		c.old = make([]digest.Hash, len(l.Pages))
	default:
		c.old = make([]digest.Hash, len(l.Pages))
		for i, k := range pairPages(mine.Pages, l.Pages) {
			if k >= 0 {
				c.old[i] = mine.Pages[k]
			}
		}
	}
	return c, nil
}

// page returns the cursor of a page, of which this node has old in its place.
func (f *frontier) page(path string, page []byte, h, old digest.Hash) (cursor, error) {
	entries, err := statefs.DecodePage(page)
	if err != nil {
		return cursor{}, fmt.Errorf("folder %q: %w", path, err)
	}
	c := cursor{path: path, entries: entries, held: len(page)}
	if h == old {
		c.base = entries
	} else if !old.IsZero() {
		if b, ok := f.staging.Node(old); ok {
			c.base, _ = statefs.DecodePage(b)
		}
	}
	return c, nil
}

// node returns the cursor of a folder or page that has arrived.
func (f *frontier) node(it *item, data []byte) (cursor, error) {
	if it.Kind == statefs.RefPage {
		return f.page(it.Path, data, it.Hash, it.base)
	}
	var base *statefs.Entry
	if !it.base.IsZero() {
		base = &statefs.Entry{Kind: statefs.KindDir, Hash: it.base}
	}
	return f.dir(it.Path, data, base)
}

// hashSet holds the contents that are being fetched: a file may have many names.
type hashSet struct {
	mu sync.Mutex
	m  map[digest.Hash]struct{}
}

func (s *hashSet) has(h digest.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.m[h]
	return ok
}

func (s *hashSet) add(h digest.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[digest.Hash]struct{})
	}
	s.m[h] = struct{}{}
}

func (s *hashSet) remove(h digest.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, h)
}

// RunWriter is a statefs.StagedFile that takes several groups in one piece,
// which costs it less: whole groups in a row, of which the first is given.
type RunWriter interface {
	PutRun(first uint32, data []byte) error
}

// file is a file of several groups on its way.
type file struct {
	path     string
	hash     digest.Hash
	size     uint64
	group    uint64
	base     digest.Hash // the content that this node has in its place
	baseSize uint64
	tried    atomic.Int64 // bytes of groups that were asked for as deltas
	saved    atomic.Int64 // of which so many did not travel

	mu     sync.RWMutex // read-held while groups are written
	staged statefs.StagedFile
	closed bool
	left   atomic.Int64
}

// item returns the piece that is group i.
func (f *file) item(i uint32) *item {
	it := &item{
		Ref:  statefs.Ref{Kind: statefs.RefData, Path: f.path, Hash: f.hash, Index: i},
		size: f.size, expect: f.length(i), file: f,
	}
	if uint64(i)*f.group < f.baseSize {
		it.base = f.base
	}
	return it
}

// length is that of group i in bytes.
func (f *file) length(i uint32) int { return int(min(f.group, f.size-uint64(i)*f.group)) }

// worthwhile reports whether groups of the file are asked for as deltas: not
// once it has shown that they share little with what is here.
func (f *file) worthwhile() bool {
	tried := f.tried.Load()
	return tried < 1<<20 || f.saved.Load() > tried/8
}

// errClosed is what a file says after the sync has turned away from it.
var errClosed = errors.New("file is closed")

// put keeps groups in a row.
func (f *file) put(first uint32, data []byte) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return errClosed
	}
	if uint64(len(data)) > f.group {
		return f.staged.(RunWriter).PutRun(first, data)
	}
	return f.staged.Put(first, data)
}

// runs reports whether several groups may be put at once.
func (f *file) runs() bool {
	_, ok := f.staged.(RunWriter)
	return ok
}

// arrived counts a group that was put for the first time, and closes the file
// after the last.
func (f *file) arrived() (last bool, err error) {
	if f.left.Add(-1) > 0 {
		return false, nil
	}
	return true, f.close()
}

func (f *file) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	return f.staged.Close()
}

// fileSet knows the files that may be open.
type fileSet struct {
	mu     sync.Mutex
	open   map[*file]struct{}
	closed bool
}

// add takes over f; it is closed at once when the set is.
func (s *fileSet) add(f *file) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return f.close()
	}
	if s.open == nil {
		s.open = make(map[*file]struct{})
	}
	s.open[f] = struct{}{}
	return nil
}

// remove forgets a file that is complete.
func (s *fileSet) remove(f *file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, f)
}

func (s *fileSet) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for f := range s.open {
		f.close()
	}
	s.open = nil
}
