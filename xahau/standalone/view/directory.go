package view

import (
	"fmt"
	"iter"
	"slices"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
)

// Directories are lists of indexes in pages: the root and, numbered from 1 on,
// more that are linked to a ring through it. The root's IndexPrevious is the last
// page.
const (
	// PageEntries is how many indexes are on a page.
	PageEntries = 32
	// maxPages is how many pages a directory has at most.
	maxPages = 262144
)

// OwnedBy describes the pages of an owner directory.
func OwnedBy(a xahau.AccountID) func(*xahau.Object) {
	return func(page *xahau.Object) { page.Set(field.Owner, a) }
}

// DirInsert adds an index to a directory whose pages keep their entries sorted,
// and tells on which page it is. describe completes new pages. It is false if the
// directory is full.
func DirInsert(v View, root keylet.Keylet, index xahau.Hash256, describe func(*xahau.Object)) (uint64, bool) {
	return dirAdd(v, root, index, describe, false)
}

// DirAppend is DirInsert for directories that keep the order of insertion, as
// those of order books and emitted transactions do.
func DirAppend(v View, root keylet.Keylet, index xahau.Hash256, describe func(*xahau.Object)) (uint64, bool) {
	return dirAdd(v, root, index, describe, true)
}

func dirAdd(v View, root keylet.Keylet, index xahau.Hash256, describe func(*xahau.Object), keepOrder bool) (uint64, bool) {
	first := Edit(v, root)
	if first == nil {
		o := NewEntry(root)
		o.Set(field.RootIndex, root.Index)
		o.Set(field.Indexes, xahau.Vector{index})
		describe(o)
		v.Insert(root, o)
		return 0, true
	}
	number := first.Uint64(field.IndexPrevious)
	k, last := root, first
	if number != 0 {
		k = keylet.Page(root.Index, number)
		if last = Edit(v, k); last == nil {
			v.Fail(fmt.Errorf("directory %s has no page %d", root.Index, number))
			return 0, false
		}
	}
	if list := last.Vector(field.Indexes); len(list) < PageEntries {
		list = slices.Clone(list)
		if keepOrder {
			list = append(list, index)
		} else {
			slices.SortFunc(list, xahau.Hash256.Compare)
			i, _ := slices.BinarySearchFunc(list, index, xahau.Hash256.Compare)
			list = slices.Insert(list, i, index)
		}
		last.Set(field.Indexes, xahau.Vector(list))
		v.Update(k, last)
		return number, true
	}
	number++
	if number >= maxPages {
		return 0, false
	}
	last.Set(field.IndexNext, xahau.Uint64(number))
	first.Set(field.IndexPrevious, xahau.Uint64(number))
	if k != root {
		v.Update(k, last)
	}
	v.Update(root, first)

	k = keylet.Page(root.Index, number)
	page := NewEntry(k)
	page.Set(field.RootIndex, root.Index)
	page.Set(field.Indexes, xahau.Vector{index})
	if number != 1 {
		page.Set(field.IndexPrevious, xahau.Uint64(number-1))
	}
	describe(page)
	v.Insert(k, page)
	return number, true
}

// DirRemove removes an index from a page of a directory, and pages that are empty
// then; the root stays if keepRoot. It is false if the index is not there.
func DirRemove(v View, root keylet.Keylet, number uint64, index xahau.Hash256, keepRoot bool) bool {
	k := keylet.Page(root.Index, number)
	page := Edit(v, k)
	if page == nil {
		return false
	}
	list := page.Vector(field.Indexes)
	i := slices.Index(list, index)
	if i < 0 {
		return false
	}
	list = slices.Delete(slices.Clone(list), i, i+1)
	page.Set(field.Indexes, xahau.Vector(list))
	v.Update(k, page)
	if len(list) > 0 {
		return true
	}
	before, after := page.Uint64(field.IndexPrevious), page.Uint64(field.IndexNext)
	if number == 0 {
		if before == after && after != 0 {
			// A last page that was left empty goes with the root's last entry.
			lk := keylet.Page(root.Index, after)
			last := v.Read(lk)
			if last == nil {
				v.Fail(fmt.Errorf("directory %s has no page %d", root.Index, after))
				return false
			}
			if len(last.Vector(field.Indexes)) == 0 {
				page = page.Clone()
				page.Set(field.IndexNext, xahau.Uint64(0))
				page.Set(field.IndexPrevious, xahau.Uint64(0))
				v.Update(k, page)
				v.Erase(lk)
				before, after = 0, 0
			}
		}
		if !keepRoot && before == 0 && after == 0 {
			v.Erase(k)
		}
		return true
	}

	// Unlink the page from the ring.
	link := func(n uint64, c chain) bool {
		k := keylet.Page(root.Index, n)
		o := Edit(v, k)
		if o == nil {
			v.Fail(fmt.Errorf("directory %s has no page %d", root.Index, n))
			return false
		}
		o.Set(c.field, xahau.Uint64(c.to))
		v.Update(k, o)
		return true
	}
	if !link(before, chain{field.IndexNext, after}) || !link(after, chain{field.IndexPrevious, before}) {
		return false
	}
	v.Erase(k)

	// The next page goes too if it is the last and empty.
	if after != 0 {
		nk := keylet.Page(root.Index, after)
		if next := v.Read(nk); next.Uint64(field.IndexNext) == 0 && len(next.Vector(field.Indexes)) == 0 {
			v.Erase(nk)
			if !link(before, chain{field.IndexNext, 0}) || !link(0, chain{field.IndexPrevious, before}) {
				return false
			}
			after = 0
		}
	}
	if !keepRoot && after == 0 && before == 0 && len(v.Read(root).Vector(field.Indexes)) == 0 {
		v.Erase(root)
	}
	return true
}

// chain is a link from one page to another.
type chain struct {
	field field.Code
	to    uint64
}

// Dir iterates over the indexes of a directory, page by page. The directory may be
// changed behind the iteration's place.
func Dir(r Reader, root keylet.Keylet) iter.Seq[xahau.Hash256] {
	return func(yield func(xahau.Hash256) bool) {
		number := uint64(0)
		for range maxPages {
			page := r.Read(keylet.Page(root.Index, number))
			if page == nil {
				if number != 0 {
					r.Fail(fmt.Errorf("directory %s has no page %d", root.Index, number))
				}
				return
			}
			for _, i := range page.Vector(field.Indexes) {
				if !yield(i) {
					return
				}
			}
			if number = page.Uint64(field.IndexNext); number == 0 {
				return
			}
		}
	}
}

// DirEmpty tells whether a directory has no entries.
func DirEmpty(r Reader, root keylet.Keylet) bool {
	for range Dir(r, root) {
		return false
	}
	return true
}
