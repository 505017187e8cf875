package statefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"evernode/internal/digest"
)

// Object implements State. Folders and pages are found by their hash alone,
// files by path and hash in the agreed version and the few before it whose
// content is still on disk.
func (d *Dir) Object(ctx context.Context, ref Ref) ([]byte, error) {
	err := d.enter()
	var data []byte
	if err == nil {
		data, err = d.object(ctx, ref)
		d.leave()
	}
	if err != nil {
		return nil, fmt.Errorf("object %s of %q: %w", ref.Hash.Short(), ref.Path, err)
	}
	return data, nil
}

func (d *Dir) object(ctx context.Context, ref Ref) ([]byte, error) {
	d.mu.Lock()
	damaged := d.damaged
	versions := append([]version{d.agreed}, d.recent...)
	d.mu.Unlock()
	if damaged {
		return nil, ErrNotFound
	}
	switch ref.Kind {
	case RefDir, RefPage:
		return d.pack.get(ref.Hash)
	case RefPatch:
		for _, v := range versions {
			if v.patch != nil && v.Patch == ref.Hash {
				return v.patch, nil
			}
		}
		return nil, ErrNotFound
	case RefList, RefData:
	default:
		return nil, fmt.Errorf("unknown kind %d: %w", ref.Kind, ErrNotFound)
	}
	var n *node
	for i := range versions {
		// The agreed version comes first, then the others from new to old.
		v := versions[0]
		if i > 0 {
			v = versions[len(versions)-i]
		}
		if f := v.tree.find(ref.Path); f != nil && f.Kind == KindFile && f.Hash == ref.Hash {
			n = f
			break
		}
	}
	if n == nil {
		return nil, ErrNotFound
	}
	group, count := Groups(n.Size)
	if ref.Kind == RefData && int64(ref.Index) >= int64(count) || ref.Kind == RefList && count < 2 {
		return nil, ErrNotFound
	}
	f, err := d.openContent(ref.Path, n)
	if errors.Is(err, ErrDamaged) || errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if ref.Kind == RefList {
		return d.lists.get(n.Hash, count, func() ([]digest.Hash, error) {
			h, values, err := hashContent(ctx, f, n.Size, nil)
			if err == nil && h != n.Hash {
				err = ErrNotFound
			}
			return values, err
		})
	}
	off := uint64(ref.Index) * group
	data := make([]byte, min(group, n.Size-off))
	if err := readFull(f, data, int64(off)); err != nil {
		if errors.Is(err, errShrunk) {
			return nil, ErrNotFound
		}
		return nil, err
	}
	return data, nil
}

// listCache keeps the group values of the files that peers fetch at the moment,
// so that a large file is hashed once for all of them.
type listCache struct {
	mu    sync.Mutex
	at    map[digest.Hash]*listEntry
	order []digest.Hash // oldest first
	size  int           // values in all entries
}

type listEntry struct {
	mu    sync.Mutex // held while the list is made
	data  []byte
	count int
}

// listCacheValues bounds the cache: 512 Ki values are 16 MiB, the lists of
// 32 GiB of files.
const listCacheValues = 512 << 10

func (c *listCache) get(h digest.Hash, count int, hash func() ([]digest.Hash, error)) ([]byte, error) {
	c.mu.Lock()
	e := c.at[h]
	if e == nil {
		if c.at == nil {
			c.at = make(map[digest.Hash]*listEntry)
		}
		for len(c.order) > 0 && c.size+count > listCacheValues {
			c.size -= c.at[c.order[0]].count
			delete(c.at, c.order[0])
			c.order = c.order[1:]
		}
		e = &listEntry{count: count}
		c.at[h] = e
		c.order = append(c.order, h)
		c.size += count
	}
	c.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.data != nil {
		return e.data, nil
	}
	values, err := hash()
	if err != nil {
		return nil, err
	}
	data := make([]byte, 0, len(values)*digest.Size)
	for i := range values {
		data = append(data, values[i][:]...)
	}
	e.data = data
	return data, nil
}
