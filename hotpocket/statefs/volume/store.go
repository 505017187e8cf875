package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"evernode/hotpocket/statefs"

	"golang.org/x/sys/unix"
)

// store is the folder of object files. An object is named by a number that is
// never given twice, and lies in one of 32 folders that are held open, so that
// making one is a single system call.
type store struct {
	root   int
	shards [shardCount]int
	next   atomic.Uint64 // the last number given out

	// mu guards open.
	mu   sync.Mutex
	open map[uint64]*object
}

const (
	shardCount = 32
	// perShard objects in a row share a folder: neighbours in number are
	// neighbours on disk, and folders stay small.
	perShard = 256
	// sideSuffix marks the file beside an object with its group values and, for
	// a layer, which blocks it holds.
	sideSuffix = ".s"
)

func openStore(dir string) (*store, error) {
	s := &store{root: -1, open: make(map[uint64]*object)}
	for i := range s.shards {
		s.shards[i] = -1
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if s.root, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	for i := range s.shards {
		name := fmt.Sprintf("%02x", i)
		if err := unix.Mkdirat(s.root, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			s.close()
			return nil, fmt.Errorf("make folder %s: %w", filepath.Join(dir, name), err)
		}
		if s.shards[i], err = unix.Openat(s.root, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			s.close()
			return nil, fmt.Errorf("open %s: %w", filepath.Join(dir, name), err)
		}
	}
	return s, nil
}

func (s *store) close() {
	for _, fd := range s.shards {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if s.root >= 0 {
		unix.Close(s.root)
	}
}

func (s *store) shard(id uint64) int { return s.shards[id/perShard%shardCount] }

func objectName(id uint64) string { return strconv.FormatUint(id, 16) }

// create makes an empty object and opens it for reading and writing.
func (s *store) create() (uint64, int, error) {
	id := s.next.Add(1)
	fd, err := retry(func() (int, error) {
		return unix.Openat(s.shard(id), objectName(id), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOATIME, 0o600)
	})
	return id, fd, err
}

// openFd opens an object.
func (s *store) openFd(id uint64, flags int) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat(s.shard(id), objectName(id), flags|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NOATIME, 0)
	})
}

func retry(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func (s *store) stat(id uint64, st *unix.Stat_t) error {
	return unix.Fstatat(s.shard(id), objectName(id), st, unix.AT_SYMLINK_NOFOLLOW)
}

// remove removes an object and what lies beside it. Either may be gone already.
func (s *store) remove(id uint64) error {
	err := unix.Unlinkat(s.shard(id), objectName(id), 0)
	if e := unix.Unlinkat(s.shard(id), objectName(id)+sideSuffix, 0); err == nil && !errors.Is(e, unix.ENOENT) {
		err = e
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// list calls fn with the name of every file in the store.
func (s *store) list(fn func(shard int, name string) error) error {
	for i := range s.shards {
		fd, err := unix.Openat(s.root, fmt.Sprintf("%02x", i), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		d := os.NewFile(uintptr(fd), "objects")
		for {
			names, err := d.Readdirnames(1024)
			for _, name := range names {
				if e := fn(i, name); e != nil {
					d.Close()
					return e
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				d.Close()
				return err
			}
		}
		d.Close()
	}
	return nil
}

// object is an open object file, shared by everybody who has it open.
type object struct {
	s    *store
	id   uint64
	refs int // guarded by store.mu
	// mu is held for writing while the file behind the number is replaced by a
	// copy of itself.
	mu sync.RWMutex
	fd int
	// also is a further descriptor to be closed with it, or 0.
	also int
	// pool is where a scratch goes when it is no longer used; it has no number.
	pool *scratches
	// alone: it is known that nobody else has the scratch open.
	alone bool
}

// get opens an object or takes part in its being open. write asks for a
// descriptor that can write, and is only allowed for objects of the open run.
func (s *store) get(id uint64, write bool) (*object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open[id]; o != nil {
		o.refs++
		return o, nil
	}
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	fd, err := s.openFd(id, flags)
	if err != nil {
		return nil, err
	}
	o := &object{s: s, id: id, fd: fd, refs: 1}
	s.open[id] = o
	return o, nil
}

// adopt makes an open object of a descriptor that create returned.
func (s *store) adopt(id uint64, fd int) *object {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &object{s: s, id: id, fd: fd, refs: 1}
	s.open[id] = o
	return o
}

// share takes part in an object's being open.
func (o *object) share() *object {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	o.refs++
	return o
}

// name makes a scratch the object that it was linked as.
func (o *object) name(id uint64) {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	o.id, o.pool = id, nil
	o.s.open[id] = o
}

// scratch reports whether the object is one without a name.
func (o *object) scratch() bool {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	return o.pool != nil
}

// put ends a use of an open object.
func (o *object) put() {
	o.s.mu.Lock()
	o.refs--
	last := o.refs == 0
	pool := o.pool
	if last && pool == nil {
		delete(o.s.open, o.id)
	}
	o.s.mu.Unlock()
	if last && pool != nil {
		pool.recycle(o.fd, o.alone)
		return
	}
	if last {
		unix.Close(o.fd)
		if o.also != 0 {
			unix.Close(o.also)
		}
	}
}

// ReadAt implements io.ReaderAt; the end of the file is io.EOF.
func (o *object) ReadAt(p []byte, off int64) (int, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	done := 0
	for done < len(p) {
		n, err := retry(func() (int, error) { return unix.Pread(o.fd, p[done:], off+int64(done)) })
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

// WriteAt implements io.WriterAt.
func (o *object) WriteAt(p []byte, off int64) (int, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return pwrite(o.fd, p, off)
}

func pwrite(fd int, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := retry(func() (int, error) { return unix.Pwrite(fd, p[done:], off+int64(done)) })
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.ErrShortWrite
		}
		done += n
	}
	return done, nil
}

// fdReader reads through a descriptor that it does not own.
type fdReader int

func (f fdReader) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := retry(func() (int, error) { return unix.Pread(int(f), p[done:], off+int64(done)) })
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

// copyFd copies the first size bytes from one open file to an empty other one.
// Holes stay holes.
func copyFd(dst, src int, size uint64) error {
	// The copies of the descriptors are closed with the files.
	d, err := unix.FcntlInt(uintptr(dst), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(d), "copy")
	defer out.Close()
	if d, err = unix.FcntlInt(uintptr(src), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return err
	}
	in := os.NewFile(uintptr(d), "original")
	defer in.Close()
	if size == 0 {
		return nil
	}
	return statefs.CopyContent(out, in, int64(size))
}

// sigOf condenses what tells a changed object from an unchanged one without
// reading it: its size and its times.
func sigOf(st *unix.Stat_t) uint64 {
	h := uint64(st.Size)*0x9e3779b97f4a7c15 + uint64(st.Mtim.Nano())
	h = (h ^ h>>29) * 0xbf58476d1ce4e5b9
	h += uint64(st.Ctim.Nano())
	h = (h ^ h>>32) * 0x94d049bb133111eb
	return h ^ h>>29
}

func blocksOf(st *unix.Stat_t) uint32 { return uint32(min(uint64(st.Blocks+7)/8, 1<<32-1)) }
