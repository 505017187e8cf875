package volume

import (
	"sort"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"

	"golang.org/x/sys/unix"
)

// node is a file, folder or link as some version has it. It never changes once
// a version contains it; versions share nodes and pages that are equal. What is
// not hashed (numbers, times, where the content is) belongs to this volume
// alone.
type node struct {
	ino    Ino
	size   uint64
	hash   digest.Hash
	mtime  int64
	ctime  int64
	atime  int64
	obj    uint64 // files: object with the content, or its lowest layer, or a place in a pack; 0 when empty
	sig    uint64 // files: what the objects looked like when they were hashed; 0 in a pack
	blocks uint32 // files: 4 KiB blocks on disk
	mode   uint16 // st_mode, with the type
	body   any    // *dirver, *layers (files in more than one object), string (links)
}

func (n *node) kind() statefs.Kind { return kindOf(uint32(n.mode)) }

// kindOf returns what a file of this st_mode is in the hashed form; 0 for what
// cannot be part of it.
func kindOf(mode uint32) statefs.Kind {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return statefs.KindDir
	case unix.S_IFREG:
		return statefs.KindFile
	case unix.S_IFLNK:
		return statefs.KindSymlink
	}
	return 0
}

const permBits = 0o7777

func (n *node) dir() *dirver {
	d, _ := n.body.(*dirver)
	return d
}

func (n *node) link() string {
	s, _ := n.body.(string)
	return s
}

// layers returns what lies over the object obj, lowest first.
func (n *node) layers() []*layer {
	if l, ok := n.body.(*layers); ok {
		return l.over
	}
	return nil
}

// objects calls fn with every object, or place in a pack, that the content is in.
func (n *node) objects(fn func(id, size uint64)) {
	if n.kind() != statefs.KindFile {
		return
	}
	if n.obj != 0 {
		fn(n.obj, n.size)
	}
	for _, l := range n.layers() {
		fn(l.obj, 0)
	}
}

// top returns the uppermost object, under whose number the group values are
// kept.
func (n *node) top() uint64 {
	if l := n.layers(); len(l) > 0 {
		return l[len(l)-1].obj
	}
	return n.obj
}

// entry returns the hashed form.
func (n *node) entry(name string) statefs.Entry {
	e := statefs.Entry{Name: name, Kind: n.kind(), Mode: n.mode & permBits}
	switch e.Kind {
	case statefs.KindFile:
		e.Size, e.Hash = n.size, n.hash
	case statefs.KindDir:
		e.Hash = n.hash
	case statefs.KindSymlink:
		e.Link = n.link()
	}
	return e
}

func (n *node) attr() Attr {
	a := Attr{
		Ino: n.ino, Kind: n.kind(), Mode: uint32(n.mode), Nlink: 1, Size: n.size,
		Blocks: uint64(n.blocks) * 8, Atime: n.atime, Mtime: n.mtime, Ctime: n.ctime,
	}
	switch b := n.body.(type) {
	case *dirver:
		a.Nlink = 2 + uint32(b.subdirs)
		a.Size, a.Blocks = dirSize(b.count), dirSize(b.count)/512
	case string:
		a.Size = uint64(len(b))
	}
	return a
}

// dirSize is the size that a folder pretends to have.
func dirSize(entries int) uint64 { return (uint64(entries)*32 + 4095) / 4096 * 4096 }

// ent is one name in a folder. In the working tree n may be older than the file:
// who wants attributes asks for the inode of that number first.
type ent struct {
	name string
	n    *node
}

// page holds neighbouring entries of a folder. A page that a version contains is
// where the hashed form has a page, and never changes.
type page struct {
	ents []ent
	// run is the run that may change the page; other runs copy it first.
	run uint64

	sealed  bool
	hard    bool // its end does not depend on what follows
	hashed  bool
	hash    digest.Hash // only valid with hashed: a folder of one page needs none
	encLen  int         // length of the encoded entries
	entries uint64      // entries of any kind at any depth
	bytes   uint64      // length of all files at any depth
}

func (p *page) find(name string) (int, bool) {
	i := sort.Search(len(p.ents), func(i int) bool { return p.ents[i].name >= name })
	return i, i < len(p.ents) && p.ents[i].name == name
}

// encode appends the encoded page.
func (p *page) encode(b []byte) []byte {
	b = wire.AppendU32(b, uint32(len(p.ents)))
	for i := range p.ents {
		e := p.ents[i].n.entry(p.ents[i].name)
		b = statefs.AppendEntry(b, &e)
	}
	return b
}

// dirver is a folder as a version has it.
type dirver struct {
	pages   []*page
	count   int
	subdirs int
	entries uint64
	bytes   uint64
}

func (d *dirver) find(name string) *node {
	if len(d.pages) == 0 {
		return nil
	}
	p := d.pages[pageFor(d.pages, name)]
	if i, ok := p.find(name); ok {
		return p.ents[i].n
	}
	return nil
}

// pageFor returns the page where a name is or would be.
func pageFor(pages []*page, name string) int {
	i := sort.Search(len(pages), func(i int) bool { return pages[i].ents[0].name > name })
	return max(0, i-1)
}

// each calls fn with all entries in order.
func (d *dirver) each(fn func(name string, n *node) error) error {
	for _, p := range d.pages {
		for i := range p.ents {
			if err := fn(p.ents[i].name, p.ents[i].n); err != nil {
				return err
			}
		}
	}
	return nil
}

// encode returns the node of the folder in the hashed form; buf is scratch space.
func (d *dirver) encode(buf []byte) ([]byte, error) {
	if len(d.pages) <= 1 {
		one := &page{}
		if len(d.pages) == 1 {
			one = d.pages[0]
		}
		return statefs.EncodeInline(one.encode(buf[:0]), d.entries, d.bytes), nil
	}
	hashes := make([]digest.Hash, len(d.pages))
	for i, p := range d.pages {
		if !p.hashed {
			// Only while sealing: the pages of a finished version with more than
			// one all have their hash.
			p.hash, p.hashed = statefs.HashPage(p.encode(buf[:0])), true
		}
		hashes[i] = p.hash
	}
	return statefs.EncodePaged(hashes, d.entries, d.bytes)
}

// recut makes the pages of a version out of those of a working folder: cut where
// the hashed form cuts, with everything below accounted for. Pages that are as
// an earlier version had them are taken over untouched.
func recut(old []*page, buf []byte) (*dirver, error) {
	d := &dirver{pages: make([]*page, 0, len(old))}
	var cur []ent
	var cut statefs.Cutter
	size, bytes := 0, 0
	emit := func(hard bool) {
		p := &page{ents: append(make([]ent, 0, len(cur)), cur...), sealed: true, hard: hard, encLen: bytes}
		for i := range p.ents {
			n := p.ents[i].n
			p.entries++
			switch n.kind() {
			case statefs.KindDir:
				p.entries += n.dir().entries
				p.bytes += n.dir().bytes
			case statefs.KindFile:
				p.bytes += n.size
			}
		}
		d.pages = append(d.pages, p)
		cur, bytes = cur[:0], 0
	}
	for i, p := range old {
		if len(cur) == 0 && p.sealed {
			ends := p.hard || i+1 == len(old)
			if !ends {
				next := &old[i+1].ents[0]
				e := next.n.entry(next.name)
				ends = p.encLen+e.EncodedSize() > statefs.MaxPageBytes
			}
			if ends {
				d.pages = append(d.pages, p)
				cut = statefs.Cutter{}
				continue
			}
		}
		for j := range p.ents {
			e := p.ents[j].n.entry(p.ents[j].name)
			size = e.EncodedSize()
			before, after := cut.Add(e.Name, size)
			if before {
				emit(false)
			}
			cur = append(cur, p.ents[j])
			bytes += size
			if after {
				emit(true)
			}
		}
	}
	if len(cur) > 0 {
		emit(false)
	}
	for _, p := range d.pages {
		d.count += len(p.ents)
		d.entries += p.entries
		d.bytes += p.bytes
	}
	if len(d.pages) > 1 {
		for _, p := range d.pages {
			if !p.hashed {
				buf = p.encode(buf[:0])
				p.hash, p.hashed = statefs.HashPage(buf), true
			}
		}
	}
	return d, nil
}
