package statefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// transform turns a folder from one version into another by touching only what
// differs.
type transform struct {
	// place puts the file n, at path, into the open folder dir. exists tells
	// that the name is taken by a file that is to be replaced.
	place func(ctx context.Context, dir int, path string, n *node, exists bool) error
	// mode maps the mode of a folder to the one it gets here.
	mode func(uint16) uint16
	// owner, when not nil, gets new folders and links.
	owner *Owner
}

// apply changes the open folder fd from one version to another. from may be
// nil for an empty folder.
func (t *transform) apply(ctx context.Context, fd int, from, to *node, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if from == nil {
		from = &node{}
	}
	if !from.Hash.IsZero() && from.Hash == to.Hash {
		return nil
	}
	if err := writableDir(fd); err != nil {
		return err
	}
	i := 0
	for _, k := range to.kids {
		for i < len(from.kids) && from.kids[i].Name < k.Name {
			if err := removeAt(fd, from.kids[i].Name); err != nil {
				return fmt.Errorf("remove %s: %w", join(path, from.kids[i].Name), err)
			}
			i++
		}
		var old *node
		if i < len(from.kids) && from.kids[i].Name == k.Name {
			old = from.kids[i]
			i++
		}
		if old == k || old != nil && old.same(k) {
			continue
		}
		if err := t.entry(ctx, fd, old, k, join(path, k.Name)); err != nil {
			return err
		}
	}
	for ; i < len(from.kids); i++ {
		if err := removeAt(fd, from.kids[i].Name); err != nil {
			return fmt.Errorf("remove %s: %w", join(path, from.kids[i].Name), err)
		}
	}
	return nil
}

func (t *transform) entry(ctx context.Context, dir int, old, k *node, path string) error {
	exists := old != nil
	if exists && (old.Kind != k.Kind || k.Kind == KindSymlink) {
		if err := removeAt(dir, k.Name); err != nil {
			return fmt.Errorf("remove %s: %w", path, err)
		}
		old, exists = nil, false
	}
	switch k.Kind {
	case KindFile:
		if err := t.place(ctx, dir, path, k, exists); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	case KindSymlink:
		if err := unix.Symlinkat(k.Link, dir, k.Name); err != nil {
			return fmt.Errorf("make link %s: %w", path, err)
		}
		if t.owner != nil {
			if err := unix.Fchownat(dir, k.Name, t.owner.UID, t.owner.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	case KindDir:
		if !exists {
			if err := unix.Mkdirat(dir, k.Name, 0o700); err != nil {
				return fmt.Errorf("make folder %s: %w", path, err)
			}
		}
		// Not openDirAt: the folder gets its mode below.
		fd, err := openDir(dir, k.Name)
		if errors.Is(err, unix.EACCES) {
			if err = unix.Fchmodat(dir, k.Name, 0o700, 0); err == nil {
				fd, err = openDir(dir, k.Name)
			}
		}
		if err != nil {
			return fmt.Errorf("open folder %s: %w", path, err)
		}
		defer unix.Close(fd)
		if !exists && t.owner != nil {
			if err := unix.Fchown(fd, t.owner.UID, t.owner.GID); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		if err := t.apply(ctx, fd, old, k, path); err != nil {
			return err
		}
		if err := unix.Fchmod(fd, uint32(t.mode(k.Mode))); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	default:
		return fmt.Errorf("%s is of unknown %v", path, k.Kind)
	}
	return nil
}

// prune removes from the open folder fd, which holds from, every file that is
// not the same in to.
func prune(fd int, from, to *node, path string) error {
	if !from.Hash.IsZero() && from.Hash == to.Hash {
		return nil
	}
	if err := writableDir(fd); err != nil {
		return err
	}
	for _, k := range from.kids {
		want := to.child(k.Name)
		switch {
		case want == nil || want.Kind != k.Kind || k.Kind == KindFile && !k.same(want):
			if err := removeAt(fd, k.Name); err != nil {
				return fmt.Errorf("remove %s: %w", join(path, k.Name), err)
			}
		case k.Kind == KindDir:
			sub, done, err := openDirAt(fd, k.Name)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				continue // changed already
			}
			if err != nil {
				return fmt.Errorf("open folder %s: %w", join(path, k.Name), err)
			}
			err = prune(sub, k, want, join(path, k.Name))
			done()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// copyInto puts a copy of src into dir as name, replacing what is there: the name
// always has its old or its new content.
func copyInto(tmp *tmpFolder, src *os.File, dir int, name string, mode uint16) error {
	as := tmp.name()
	if err := copyFile(tmp.fd, as, src, mode); err != nil {
		unix.Unlinkat(tmp.fd, as, 0)
		return fmt.Errorf("copy: %w", err)
	}
	return unix.Renameat(tmp.fd, as, dir, name)
}

// linkInto gives the file name in the folder from a second name in dir. A file
// that has as many names as its file system allows is copied instead.
func linkInto(tmp *tmpFolder, from int, name string, dir int, as string, mode uint16) error {
	err := unix.Linkat(from, name, dir, as, 0)
	if !errors.Is(err, unix.EMLINK) {
		return err
	}
	src, err := openFileAt(from, name)
	if err != nil {
		return err
	}
	defer src.Close()
	return copyInto(tmp, src, dir, as, mode)
}

// tmpFolder hands out names that nobody else uses in a folder on the same file
// system, which is emptied at every start.
type tmpFolder struct {
	fd   int
	last atomic.Uint64
}

func (t *tmpFolder) name() string { return strconv.FormatUint(t.last.Add(1), 10) }
