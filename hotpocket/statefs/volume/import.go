package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"evernode/hotpocket/statefs"

	"golang.org/x/sys/unix"
)

// importFolder makes version ImportVersion out of a plain folder.
func (v *Volume) importFolder(ctx context.Context) (*version, error) {
	v.run = &run{id: v.runID.Add(1)}
	v.writable = true
	v.open4Writing.Store(true)
	if err := v.importDir(ctx, Root, v.cfg.Import, 0); err != nil {
		return nil, err
	}
	touched := v.freeze()
	contents, err := v.sealContents(ctx, touched)
	if err != nil {
		return nil, err
	}
	var ch Changes
	v.mu.Lock()
	err = v.sealTree(contents, &ch)
	v.mu.Unlock()
	if err != nil {
		return nil, err
	}
	ver := &version{root: v.root.n, patch: v.cfg.ImportPatch, durable: true}
	ver.Seq, ver.Root = v.cfg.ImportVersion.Seq, v.root.n.hash
	if ver.patch != nil {
		ver.Patch = statefs.HashPatch(ver.patch)
	}
	v.settle(v.run, nil)
	return ver, nil
}

func (v *Volume) importDir(ctx context.Context, to Ino, path string, depth int) error {
	if depth > statefs.MaxDepth {
		return fmt.Errorf("%s: folders are nested deeper than %d", path, statefs.MaxDepth)
	}
	list, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		from := filepath.Join(path, e.Name())
		var st unix.Stat_t
		if err := unix.Lstat(from, &st); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		var a Attr
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			if a, err = v.Mkdir(to, e.Name(), st.Mode&permBits); err == nil {
				err = v.importDir(ctx, a.Ino, from, depth+1)
			}
		case unix.S_IFREG:
			a, err = v.importFile(to, e.Name(), from)
		case unix.S_IFLNK:
			var target string
			if target, err = os.Readlink(from); err == nil {
				a, err = v.Symlink(to, e.Name(), target)
			}
		default:
			v.log.Warn("left out: not a file, folder or link", "path", from)
			continue
		}
		if err == nil {
			c := Change{Mtime: ptr(st.Mtim.Nano()), Atime: ptr(st.Atim.Nano())}
			if st.Mode&unix.S_IFMT != unix.S_IFLNK {
				c.Mode = ptr(st.Mode & permBits)
			}
			_, err = v.SetAttr(a.Ino, c)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
	}
	return nil
}

func ptr[T any](x T) *T { return &x }

func (v *Volume) importFile(to Ino, name, from string) (Attr, error) {
	src, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Attr{}, err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return Attr{}, err
	}
	a, f, err := v.Create(to, name, uint32(st.Mode().Perm()), unix.O_WRONLY)
	if err != nil {
		return a, err
	}
	defer f.Close()
	return a, copyFd(f.open.plain.fd, int(src.Fd()), uint64(st.Size()))
}

// Export writes the agreed version into a plain folder, which must be empty, and
// syncs it. Owners are those of the process.
func (v *Volume) Export(ctx context.Context, dir string) error {
	s, err := v.Snapshot()
	if err != nil {
		return fmt.Errorf("export the state: %w", err)
	}
	defer s.Close()
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		return fmt.Errorf("export the state to %s: %w", dir, errors.Join(err, unix.ENOTEMPTY))
	}
	if err := v.exportDir(ctx, s.root, dir); err != nil {
		return fmt.Errorf("export the state: %w", err)
	}
	return syncTree(dir)
}

func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

func (v *Volume) exportDir(ctx context.Context, n *node, dir string) error {
	return n.dir().each(func(name string, k *node) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(dir, name)
		var err error
		switch k.kind() {
		case statefs.KindDir:
			if err = os.Mkdir(path, 0o700); err == nil {
				err = v.exportDir(ctx, k, path)
			}
		case statefs.KindFile:
			err = v.exportFile(k, path)
		case statefs.KindSymlink:
			err = os.Symlink(k.link(), path)
		}
		if err == nil && k.kind() != statefs.KindSymlink {
			err = unix.Fchmodat(unix.AT_FDCWD, path, uint32(k.mode&permBits), 0)
		}
		if err == nil {
			ts := []unix.Timespec{unix.NsecToTimespec(k.atime), unix.NsecToTimespec(k.mtime)}
			err = unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	})
}

func (v *Volume) exportFile(k *node, path string) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	c, err := v.openContent(k.obj, k.layers(), k.size)
	if err != nil {
		return err
	}
	defer c.close()
	return copyPlain(int(out.Fd()), c, k.size)
}
