package statefs

import (
	"errors"
	"fmt"
	"strings"

	"evernode/internal/digest"
	"evernode/internal/wire"
)

// Kind says what an entry of a directory is. The numbers are part of the hashed
// form.
type Kind uint8

// The kinds of entries that can be part of the state.
const (
	KindDir     Kind = 1
	KindFile    Kind = 2
	KindSymlink Kind = 3
)

func (k Kind) String() string {
	switch k {
	case KindDir:
		return "directory"
	case KindFile:
		return "file"
	case KindSymlink:
		return "symbolic link"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Limits of the hashed form. They follow from Linux (names, link targets) and
// from the size of a message between nodes.
const (
	maxName   = 255
	maxTarget = 4095
	modeBits  = 0o7777

	// A page of a directory ends after an entry whose name says so, so that
	// inserting a name moves no other page's border.
	minPageEntries = 64
	maxPageEntries = 2048
	pageBorderMask = 0xff

	// MaxPageBytes bounds the entries of a page, unless it has only one.
	MaxPageBytes = 128 << 10

	// maxPages bounds a directory node to about 2 MiB and so a directory to
	// at least 3.5 million entries.
	maxPages = 56 << 10

	// MaxObject bounds the encoding of every object of the tree, in bytes: a
	// directory node, a page, a list of group values, a group.
	MaxObject = 2<<20 + 4096

	// MaxPatch is the largest patch.cfg, in bytes.
	MaxPatch = 1 << 20
)

const (
	tagDir   = "evernode/state/dir/1"
	tagPage  = "evernode/state/page/1"
	tagPatch = "evernode/state/patch/1"
)

const (
	formInline uint8 = 0
	formPaged  uint8 = 1
)

// Entry is one name in a directory, with everything that the hash binds: owner,
// times and extended attributes are not among it (spec/hotpocket.md section
// 5.1).
type Entry struct {
	Name string
	Kind Kind
	Mode uint16      // permission, setuid, setgid and sticky bits; 0777 for links
	Size uint64      // files: length in bytes
	Hash digest.Hash // files: plain BLAKE3 of the content; directories: HashDir of their node
	Link string      // symbolic links: the target
}

// Listing is a directory as its node tells it: either all entries, or the
// hashes of the pages that hold them. Entries and Bytes count everything below
// the directory, which is how a node that fetches a state knows how much there
// is to come.
type Listing struct {
	Entries uint64 // entries of any kind below, at any depth
	Bytes   uint64 // length of all files below, at any depth
	Inline  []Entry
	Pages   []digest.Hash
}

// HashDir returns the hash of an encoded directory node. The root of a state is
// the HashDir of its top folder, whose own name and mode are not part of it:
// the mode depends on the umask of whoever created the folder.
func HashDir(node []byte) digest.Hash { return digest.Tagged(tagDir, node) }

// HashPage returns the hash of an encoded page of a directory.
func HashPage(page []byte) digest.Hash { return digest.Tagged(tagPage, page) }

// HashPatch returns the hash of the content of patch.cfg. The zero Hash stands
// for a missing file.
func HashPatch(content []byte) digest.Hash { return digest.Tagged(tagPatch, content) }

// EncodeDir returns the node of a directory with the given entries, sorted by
// the bytes of their names, and its pages if it has more than one. entriesBelow
// and bytesBelow count the subtree. The encoding is a function of the entries
// alone: equal directories have equal nodes.
//
// Node: u8 form, u64 entries, u64 bytes, then form 0: u32 count and the
// entries; form 1: u32 count and the page hashes. Page: u32 count and the
// entries. Entry: u8 kind, u16 mode, name, then for files u64 size and hash, for
// directories hash, for links the target.
func EncodeDir(entries []Entry, entriesBelow, bytesBelow uint64) (node []byte, pages [][]byte, err error) {
	start := 0
	var page []byte
	var cut Cutter
	flush := func(end int) {
		b := wire.AppendU32(make([]byte, 0, 4+len(page)), uint32(end-start))
		pages = append(pages, append(b, page...))
		page, start = page[:0], end
	}
	for i := range entries {
		before, after := cut.Add(entries[i].Name, entries[i].EncodedSize())
		if before {
			flush(i)
		}
		page = AppendEntry(page, &entries[i])
		if after {
			flush(i + 1)
		}
	}
	if start < len(entries) || len(entries) == 0 {
		flush(len(entries))
	}
	if len(pages) == 1 {
		return EncodeInline(pages[0], entriesBelow, bytesBelow), nil, nil
	}
	hashes := make([]digest.Hash, len(pages))
	for i, p := range pages {
		hashes[i] = HashPage(p)
	}
	node, err = EncodePaged(hashes, entriesBelow, bytesBelow)
	if err != nil {
		return nil, nil, err
	}
	return node, pages, nil
}

// EncodeInline returns the node of a directory whose entries fit into one page.
func EncodeInline(page []byte, entriesBelow, bytesBelow uint64) []byte {
	head := make([]byte, 0, 17+len(page))
	head = wire.AppendU8(head, formInline)
	head = wire.AppendU64(head, entriesBelow)
	head = wire.AppendU64(head, bytesBelow)
	return append(head, page...)
}

// EncodePaged returns the node of a directory of several pages.
func EncodePaged(pages []digest.Hash, entriesBelow, bytesBelow uint64) ([]byte, error) {
	if len(pages) > maxPages {
		return nil, fmt.Errorf("directory has %d pages, at most %d are allowed", len(pages), maxPages)
	}
	node := make([]byte, 0, 21+len(pages)*digest.Size)
	node = wire.AppendU8(node, formPaged)
	node = wire.AppendU64(node, entriesBelow)
	node = wire.AppendU64(node, bytesBelow)
	node = wire.AppendU32(node, uint32(len(pages)))
	for i := range pages {
		node = append(node, pages[i][:]...)
	}
	return node, nil
}

// Cutter says where the pages of a directory end while its entries go by in
// order. The zero Cutter stands before the first one.
type Cutter struct {
	n, bytes int
}

// Add takes the next entry, of which only the name and the EncodedSize matter.
// before says that the page ended in front of it because it would have become
// too large with it, after that the page ends behind it.
func (c *Cutter) Add(name string, size int) (before, after bool) {
	if c.n > 0 && c.bytes+size > MaxPageBytes {
		before = true
		c.n, c.bytes = 0, 0
	}
	c.n++
	c.bytes += size
	if c.n >= maxPageEntries || c.n >= minPageEntries && borderAfter(name) {
		after = true
		c.n, c.bytes = 0, 0
	}
	return before, after
}

// borderAfter reports whether a page may end after this name: one name in 256.
func borderAfter(name string) bool {
	h := uint64(14695981039346656037) // FNV-1a, then mixed
	for i := 0; i < len(name); i++ {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	return (h>>40)&pageBorderMask == 0
}

// EncodedSize returns how many bytes AppendEntry appends.
func (e *Entry) EncodedSize() int {
	n := 1 + 2 + 4 + len(e.Name)
	switch e.Kind {
	case KindFile:
		n += 8 + digest.Size
	case KindDir:
		n += digest.Size
	case KindSymlink:
		n += 4 + len(e.Link)
	}
	return n
}

// AppendEntry appends the encoding of an entry. A page is the number of its
// entries as u32 and their encodings.
func AppendEntry(b []byte, e *Entry) []byte {
	b = wire.AppendU8(b, uint8(e.Kind))
	b = wire.AppendU16(b, e.Mode)
	b = wire.AppendString(b, e.Name)
	switch e.Kind {
	case KindFile:
		b = wire.AppendU64(b, e.Size)
		b = append(b, e.Hash[:]...)
	case KindDir:
		b = append(b, e.Hash[:]...)
	case KindSymlink:
		b = wire.AppendString(b, e.Link)
	}
	return b
}

// DecodeDir reads a directory node. Names and order are checked; that a paged
// directory is cut where EncodeDir cuts it shows when Join puts it together.
func DecodeDir(node []byte) (Listing, error) {
	var l Listing
	if len(node) > MaxObject {
		return l, fmt.Errorf("directory node of %d bytes, at most %d are allowed", len(node), MaxObject)
	}
	r := wire.NewReader(node)
	form := r.U8()
	l.Entries, l.Bytes = r.U64(), r.U64()
	switch form {
	case formInline:
		l.Inline = readEntries(r)
	case formPaged:
		n := r.Count(maxPages, digest.Size)
		if r.Err() == nil && n < 2 {
			return l, fmt.Errorf("directory node with %d pages, a paged one has at least 2", n)
		}
		l.Pages = make([]digest.Hash, n)
		for i := range l.Pages {
			r.Fixed(l.Pages[i][:])
		}
	default:
		return l, fmt.Errorf("directory node of unknown form %d", form)
	}
	if err := r.Close(); err != nil {
		return l, fmt.Errorf("directory node: %w", err)
	}
	if form == formInline {
		again, pages, err := EncodeDir(l.Inline, l.Entries, l.Bytes)
		if err != nil || pages != nil || string(again) != string(node) {
			return l, errors.New("directory node is not in its one valid form")
		}
	}
	return l, nil
}

// DecodePage reads one page of a directory.
func DecodePage(page []byte) ([]Entry, error) {
	if len(page) > MaxObject {
		return nil, fmt.Errorf("directory page of %d bytes, at most %d are allowed", len(page), MaxObject)
	}
	r := wire.NewReader(page)
	entries := readEntries(r)
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("directory page: %w", err)
	}
	return entries, nil
}

// Join puts the decoded pages of a paged directory together, in order, and
// checks that they are exactly the directory with the given hash.
func Join(l Listing, pages [][]Entry, hash digest.Hash) ([]Entry, error) {
	var entries []Entry
	for _, p := range pages {
		entries = append(entries, p...)
	}
	if err := checkOrder(entries); err != nil {
		return nil, fmt.Errorf("directory pages: %w", err)
	}
	node, _, err := EncodeDir(entries, l.Entries, l.Bytes)
	if err != nil {
		return nil, err
	}
	if HashDir(node) != hash {
		return nil, errors.New("directory is not cut into pages where it has to be")
	}
	return entries, nil
}

func readEntries(r *wire.Reader) []Entry {
	n := r.Count(maxPageEntries, 11)
	if r.Err() != nil {
		return nil
	}
	entries := make([]Entry, 0, n)
	for range n {
		e := Entry{Kind: Kind(r.U8()), Mode: r.U16(), Name: r.String(maxName)}
		switch e.Kind {
		case KindFile:
			e.Size = r.U64()
			r.Fixed(e.Hash[:])
		case KindDir:
			r.Fixed(e.Hash[:])
		case KindSymlink:
			e.Link = r.String(maxTarget)
		}
		if r.Err() == nil {
			if err := checkEntry(&e); err != nil {
				r.Fail(err)
			}
		}
		if r.Err() != nil {
			return nil
		}
		entries = append(entries, e)
	}
	if err := checkOrder(entries); err != nil {
		r.Fail(err)
		return nil
	}
	return entries
}

func checkOrder(entries []Entry) error {
	for i := 1; i < len(entries); i++ {
		if entries[i-1].Name >= entries[i].Name {
			return fmt.Errorf("name %q does not come after %q", entries[i].Name, entries[i-1].Name)
		}
	}
	return nil
}

// checkEntry refuses whatever could not have come from a folder, above all
// names that lead out of one.
func checkEntry(e *Entry) error {
	switch {
	case e.Name == "" || e.Name == "." || e.Name == "..":
		return fmt.Errorf("%q is not a file name", e.Name)
	case len(e.Name) > maxName:
		return fmt.Errorf("file name of %d bytes, at most %d are allowed", len(e.Name), maxName)
	case strings.ContainsAny(e.Name, "/\x00"):
		return fmt.Errorf("file name %q contains a slash or a zero byte", e.Name)
	case e.Mode&^modeBits != 0:
		return fmt.Errorf("%q has mode %#o", e.Name, e.Mode)
	}
	switch e.Kind {
	case KindDir:
	case KindFile:
		if e.Size > MaxFileSize {
			return fmt.Errorf("%q: %w", e.Name, ErrFileTooLarge)
		}
	case KindSymlink:
		if e.Mode != 0o777 {
			return fmt.Errorf("symbolic link %q has mode %#o, want 0777", e.Name, e.Mode)
		}
		if e.Link == "" || len(e.Link) > maxTarget || strings.Contains(e.Link, "\x00") {
			return fmt.Errorf("symbolic link %q has target %q", e.Name, e.Link)
		}
	default:
		return fmt.Errorf("%q is of unknown %v", e.Name, e.Kind)
	}
	return nil
}
