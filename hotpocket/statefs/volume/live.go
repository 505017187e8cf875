package volume

import (
	"strings"
	"sync"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// inode is a file, folder or link of the working tree that somebody has asked
// for by its number or that the open run has changed. All others are only in
// the pages of their folder. The fields are guarded by Volume.mu.
type inode struct {
	ino Ino
	// n is what the entries of folders hold: the file as it was last sealed, or,
	// for one made in this run, a node with nothing but number and mode.
	n     *node
	mode  uint32 // st_mode
	nlink int32  // names; folders: 2 and their subfolders, 0 when removed
	size  uint64
	mtime int64
	ctime int64
	atime int64

	// parent and name are where the file is; more are further names of a file
	// with hard links. parent is nil for the top folder and for what has no name.
	parent *inode
	name   string
	more   []nameRef

	blocks uint32
	dir    *ldir // folders
	file   *file // regular files that are open or changed
	undo   *undo // set while the open run has changed it
}

type nameRef struct {
	parent *inode
	name   string
}

// undo is how a changed inode was when the run began.
type undo struct {
	base   *node // nil: it did not exist
	parent *inode
	name   string
}

// ldir is a folder of the working tree.
type ldir struct {
	pages   []*page
	run     uint64 // the run that may change the slice
	count   int
	subdirs int
}

// file is what is known of the content of a file that is open or changed.
//
// io is held for reading while content is read, for writing while it changes and
// while it moves to another object. It is taken before Volume.mu. The other fields
// change only with both held, so either suffices to read them.
type file struct {
	io sync.RWMutex

	obj uint64 // object with the content, or its lowest layer, or a place in a pack
	own bool   // the object was made in this run: it may be written
	// scratch has the content of an own file that has no object yet.
	scratch *object
	// fresh: the content was moved to a pack in this run, and has the hash sum.
	fresh bool
	sum   digest.Hash
	// resting: it is in the queue of closed files. Guarded by Volume.mu.
	resting bool
	lay     []*layer   // layers of the agreed content
	over    *overlay   // layer of the open run
	open    *openState // nil when no File is open
	// changed says that the content may differ from the one last sealed.
	changed bool
	// hot: it was once open for reading when it was opened for writing, which
	// costs a copy if the kernel reads it without us.
	hot bool
}

// openState is shared by all Files of an inode.
type openState struct {
	refs    int
	writers int
	served  bool
	key     uint64
	claim   uint64        // the object that is claimed for the kernel, or 0
	gone    chan struct{} // closed with the last File, if somebody waits
	// plain is the open object when the content is in one, which is also the
	// backing for the kernel; layers are the open layers otherwise.
	plain  *object
	layers *content
}

// isDir reports whether the inode is a folder.
func (in *inode) isDir() bool { return in.mode&unix.S_IFMT == unix.S_IFDIR }

func (in *inode) isFile() bool { return in.mode&unix.S_IFMT == unix.S_IFREG }

// reset makes the inode what the node says.
func (in *inode) reset(n *node) {
	in.n, in.mode, in.size, in.blocks = n, uint32(n.mode), n.size, n.blocks
	in.mtime, in.ctime, in.atime = n.mtime, n.ctime, n.atime
	in.nlink, in.more = 1, nil
	if d := n.dir(); d != nil {
		in.dir = &ldir{pages: d.pages, count: d.count, subdirs: d.subdirs}
		in.nlink = 2 + int32(d.subdirs)
	}
}

// attr returns the attributes. The caller holds v.mu.
func (in *inode) attr() Attr {
	a := Attr{
		Ino: in.ino, Kind: kindOf(in.mode), Mode: in.mode, Nlink: uint32(max(in.nlink, 0)),
		Size: in.size, Blocks: uint64(in.blocks) * 8, Atime: in.atime, Mtime: in.mtime, Ctime: in.ctime,
	}
	switch a.Kind {
	case statefs.KindDir:
		a.Size = dirSize(in.dir.count)
		a.Blocks = a.Size / 512
	case statefs.KindSymlink:
		a.Size = uint64(len(in.n.link()))
	case statefs.KindFile:
		if f := in.file; f != nil {
			f.attr(in, &a)
		}
	}
	return a
}

// attr puts in what the kernel or an overlay knows better than the inode.
func (f *file) attr(in *inode, a *Attr) {
	if o := f.over; o != nil {
		a.Size = o.size.Load()
		if t := o.mtime.Load(); t != 0 {
			a.Mtime, a.Ctime = t, max(in.ctime, t)
		}
		return
	}
	if !f.own || f.open == nil || f.open.plain == nil {
		return
	}
	var st unix.Stat_t
	if unix.Fstat(f.open.plain.fd, &st) != nil {
		return // the values from before the file was opened
	}
	a.Size, a.Blocks = uint64(st.Size), uint64(st.Blocks)
	if m := st.Mtim.Nano(); m != in.mtime || a.Size != in.size {
		a.Mtime, a.Ctime = m, max(in.ctime, m)
	}
}

// get returns the inode of a number. The caller holds v.mu.
func (v *Volume) get(ino Ino) (*inode, error) {
	if in := v.live[ino]; in != nil {
		return in, nil
	}
	return nil, unix.ESTALE
}

// getDir returns the folder of a number.
func (v *Volume) getDir(ino Ino) (*inode, error) {
	in, err := v.get(ino)
	if err != nil {
		return nil, err
	}
	if !in.isDir() {
		return nil, unix.ENOTDIR
	}
	return in, nil
}

// child returns the inode of an entry, making it if needed: the caller holds
// v.mu for writing.
func (v *Volume) child(parent *inode, name string) *inode {
	n := parent.dir.find(name)
	if n == nil {
		return nil
	}
	if in := v.live[n.ino]; in != nil {
		return in
	}
	in := &inode{ino: n.ino, parent: parent, name: name}
	in.reset(n)
	v.live[n.ino] = in
	return in
}

func (d *ldir) find(name string) *node {
	if len(d.pages) == 0 {
		return nil
	}
	p := d.pages[pageFor(d.pages, name)]
	if i, ok := p.find(name); ok {
		return p.ents[i].n
	}
	return nil
}

// liveMax is the number of entries at which a page of the working tree is split;
// where the hashed form cuts shows when the run ends.
const liveMax = 1024

// own makes the page at i one that run may change.
func (d *ldir) own(i int, run uint64) *page {
	if d.run != run {
		d.pages = append(make([]*page, 0, len(d.pages)+1), d.pages...)
		d.run = run
	}
	p := d.pages[i]
	if p.run != run {
		c := &page{run: run, ents: append(make([]ent, 0, len(p.ents)+8), p.ents...)}
		d.pages[i], p = c, c
	}
	p.sealed, p.hashed = false, false
	return p
}

// insert adds an entry, which must not exist.
func (d *ldir) insert(name string, n *node, run uint64) {
	d.count++
	if n.kind() == statefs.KindDir {
		d.subdirs++
	}
	if len(d.pages) == 0 {
		d.pages = append(make([]*page, 0, 4), &page{run: run, ents: []ent{{name, n}}})
		d.run = run
		return
	}
	pi := pageFor(d.pages, name)
	p := d.own(pi, run)
	i, _ := p.find(name)
	if len(p.ents) == cap(p.ents) {
		// Doubling would leave half of a large folder unused.
		p.ents = append(make([]ent, 0, len(p.ents)+len(p.ents)/2+8), p.ents...)
	}
	p.ents = append(p.ents, ent{})
	copy(p.ents[i+1:], p.ents[i:])
	p.ents[i] = ent{name, n}
	if len(p.ents) < liveMax {
		return
	}
	// When names come in order, the left page stays full.
	at := len(p.ents) / 2
	if i == len(p.ents)-1 {
		at = len(p.ents) - 1
	}
	right := &page{run: run, ents: append(make([]ent, 0, liveMax/2), p.ents[at:]...)}
	clear(p.ents[at:])
	p.ents = p.ents[:at]
	d.pages = append(d.pages, nil)
	copy(d.pages[pi+2:], d.pages[pi+1:])
	d.pages[pi+1] = right
}

// remove takes an entry out.
func (d *ldir) remove(name string, run uint64) {
	pi := pageFor(d.pages, name)
	p := d.own(pi, run)
	i, ok := p.find(name)
	if !ok {
		return
	}
	if p.ents[i].n.kind() == statefs.KindDir {
		d.subdirs--
	}
	d.count--
	copy(p.ents[i:], p.ents[i+1:])
	p.ents[len(p.ents)-1] = ent{}
	p.ents = p.ents[:len(p.ents)-1]
	if len(p.ents) == 0 {
		d.pages = append(d.pages[:pi], d.pages[pi+1:]...)
	}
}

// set replaces the node of an entry.
func (d *ldir) set(name string, n *node, run uint64) {
	p := d.own(pageFor(d.pages, name), run)
	if i, ok := p.find(name); ok {
		p.ents[i].n = n
	}
}

// validName refuses what cannot be a name.
func validName(name string) error {
	switch {
	case len(name) > 255:
		return unix.ENAMETOOLONG
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return unix.EINVAL
	}
	return nil
}
