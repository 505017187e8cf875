package statefs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// view is an open View: a reference to a side.
type view struct {
	d    *Dir
	s    *side
	v    Version
	once sync.Once
}

// View implements State. It costs a look at the private files; views share a
// side. When both sides are held by older views, a new one may see the version
// before the last.
func (d *Dir) View(ctx context.Context) (View, error) {
	if err := d.enter(); err != nil {
		return nil, fmt.Errorf("open view: %w", err)
	}
	defer d.leave()
	d.mu.Lock()
	if d.damaged {
		d.mu.Unlock()
		return nil, fmt.Errorf("open view: %w", ErrDamaged)
	}
	if s := d.sides[d.current]; s.holds.Root != d.agreed.Root || s.holds.Patch != d.agreed.Patch {
		d.mu.Unlock()
		if d.settling.TryLock() {
			err := d.settle(ctx)
			d.settling.Unlock()
			if err != nil {
				return nil, fmt.Errorf("open view: %w", err)
			}
		}
		d.mu.Lock()
	}
	wake := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.settled.Broadcast()
	})
	defer wake()
	for d.sides[d.current].busy && ctx.Err() == nil {
		d.settled.Wait()
	}
	s := d.sides[d.current]
	if err := ctx.Err(); err != nil || s.holds.tree == nil {
		d.mu.Unlock()
		if err == nil {
			err = ErrDamaged
		}
		return nil, fmt.Errorf("open view: %w", err)
	}
	s.refs++
	v := &view{d: d, s: s, v: s.holds.Version}
	d.mu.Unlock()
	if err := d.showPrivate(ctx, s); err != nil {
		v.Close()
		return nil, fmt.Errorf("open view: private files: %w", err)
	}
	return v, nil
}

// Dir implements View.
func (v *view) Dir() string { return filepath.Join(v.d.paths.mnt, v.s.name, "state") }

// Version implements View.
func (v *view) Version() Version { return v.v }

// Close implements View.
func (v *view) Close() error {
	v.once.Do(func() {
		v.d.mu.Lock()
		v.s.refs--
		v.d.mu.Unlock()
	})
	return nil
}

// showPrivate brings the private files beside a side's state up to date. Where a
// mount protects them they are the same inodes; elsewhere they are copies
// without write permission.
func (d *Dir) showPrivate(ctx context.Context, s *side) error {
	s.privateMu.Lock()
	defer s.privateMu.Unlock()
	// A descriptor of its own: views of both sides may read the folder at once.
	work, err := openDir(d.work, ".")
	if err != nil {
		return err
	}
	defer unix.Close(work)
	now, err := d.privateTree(work, "", 0)
	if err != nil {
		return err
	}
	if s.private == nil {
		// What an earlier process showed is not known: show everything anew.
		if s.private, err = d.privateTree(s.top, "", 0); err != nil {
			return err
		}
		clearHashes(s.private)
	}
	if s.private.Hash == now.Hash {
		return nil
	}
	again := false
	t := transform{mode: d.viewDirMode, owner: d.cfg.Owner}
	t.place = func(_ context.Context, dir int, path string, n *node, exists bool) error {
		var err error
		if d.mounted {
			if err = removeAt(dir, n.Name); err == nil {
				err = linkInto(d.tmp, d.work, path, dir, n.Name, n.Mode)
			}
		} else {
			err = d.copyPrivate(path, dir, n)
		}
		if errors.Is(err, unix.ENOENT) || errors.Is(err, errShrunk) {
			// Gone, or being written to by the run that is open: what was shown
			// before stays until the next look.
			again = true
			return nil
		}
		return err
	}
	old := s.private
	s.private = nil
	if err := t.apply(ctx, s.top, old, now, ""); err != nil {
		return err
	}
	if err := unix.Fchmod(s.top, uint32(d.viewDirMode(0o755))); err != nil {
		return err
	}
	if !again {
		s.private = now
	}
	return nil
}

func clearHashes(n *node) {
	n.Hash = digest.Hash{}
	for _, k := range n.kids {
		clearHashes(k)
	}
}

func (d *Dir) copyPrivate(path string, dir int, n *node) error {
	src, err := openPath(d.work, path)
	if err != nil {
		return err
	}
	defer src.Close()
	return copyInto(d.tmp, src, dir, n.Name, d.viewMode(n.Mode))
}

// privateTree lists the private files; their "hash" stands for what identifies
// their content, without reading it.
func (d *Dir) privateTree(dir int, path string, depth int) (*node, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("%s: folders are nested deeper than %d", path, MaxDepth)
	}
	list, err := names(dir, make([]byte, 2<<10))
	if err != nil {
		return nil, err
	}
	n := &node{Entry: Entry{Kind: KindDir}}
	for _, name := range list {
		if depth == 0 && (name == "state" || name == patchName) {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			return nil, err
		}
		k := &node{Entry: Entry{Name: name, Mode: uint16(st.Mode & modeBits)}}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			k.Kind = KindFile
			id := []uint64{st.Ino}
			if !d.mounted {
				id = append(id, uint64(st.Mtim.Nano()), uint64(st.Ctim.Nano()), uint64(st.Size))
			}
			var b []byte
			for _, v := range id {
				b = binary.BigEndian.AppendUint64(b, v)
			}
			k.Hash = digest.Sum(b)
		case unix.S_IFDIR:
			fd, done, err := openDirAt(dir, name)
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return nil, err
			}
			sub, err := d.privateTree(fd, join(path, name), depth+1)
			done()
			if err != nil {
				return nil, err
			}
			sub.Entry.Name, sub.Entry.Mode = name, k.Mode
			k = sub
		case unix.S_IFLNK:
			k.Kind, k.Mode = KindSymlink, 0o777
			if k.Link, err = readLinkAt(dir, name); err != nil {
				if errors.Is(err, unix.ENOENT) {
					continue
				}
				return nil, err
			}
		default:
			continue
		}
		n.kids = append(n.kids, k)
	}
	if err := n.seal(); err != nil {
		return nil, err
	}
	return n, nil
}
