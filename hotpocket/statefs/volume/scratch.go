package volume

import (
	"errors"
	"fmt"
	"sync"

	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// scratches are files without a name in which new contents are written. When a
// content is complete and small it moves to a pack and the file is used again;
// a large one gets a name and stays where it is. So making a small file costs the
// disk's file system nothing.
type scratches struct {
	ready chan int // empty, open for reading and writing
	once  sync.Once

	mu sync.Mutex
	// idle are files of the run whose content is in a scratch and that nobody
	// has open, oldest first. A program often opens again what it has just
	// written.
	idle []*inode
	more *sync.Cond
	stop bool
	sent chan struct{}
}

const (
	// scratchReady is how many empty scratches are made at the start, scratchKept
	// how many are kept when they are no longer used, idleMax how many closed
	// files keep theirs: fewer, so that some are ready while old files are packed.
	scratchReady = 64
	scratchKept  = 128
	idleMax      = 32
)

// newScratch makes a file without a name.
func (s *store) newScratch() (int, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(s.root, ".", unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		// A file system without them: as before, with a name for a moment.
		id := s.next.Add(1)
		if fd, err = retry(func() (int, error) {
			return unix.Openat(s.shard(id), objectName(id), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		}); err == nil {
			err = unix.Unlinkat(s.shard(id), objectName(id), 0)
		}
	}
	return fd, err
}

// keep gives a scratch a name, as an object. linked is false when that took a
// copy.
func (s *store) keep(fd int) (id uint64, linked bool, err error) {
	id = s.next.Add(1)
	err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), s.shard(id), objectName(id), unix.AT_SYMLINK_FOLLOW)
	if err == nil {
		return id, true, nil
	}
	// What was unlinked once cannot be linked again everywhere.
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, false, err
	}
	id, out, err := s.create()
	if err != nil {
		return 0, false, err
	}
	defer unix.Close(out)
	if err := copyFd(out, fd, uint64(st.Size)); err != nil {
		unix.Unlinkat(s.shard(id), objectName(id), 0)
		return 0, false, err
	}
	return id, false, futimens(out, st.Mtim.Nano())
}

// alone reports whether nobody but us has the file behind a descriptor of ours
// open or mapped. The kernel knows: it grants an exclusive lease only then.
func alone(fd int) bool {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return false
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return err == nil
}

func (s *scratches) start(v *Volume) {
	s.ready, s.sent = make(chan int, scratchKept), make(chan struct{})
	s.more = sync.NewCond(&s.mu)
	for range scratchReady {
		fd, err := v.store.newScratch()
		if err != nil {
			break // the disk is full: whoever needs one tries itself and tells
		}
		s.ready <- fd
	}
	go func() {
		defer close(s.sent)
		for {
			s.mu.Lock()
			for len(s.idle) <= idleMax && !s.stop {
				s.more.Wait()
			}
			stop := s.stop
			s.mu.Unlock()
			if stop {
				return
			}
			s.packOldest(v)
		}
	}()
}

// packOldest moves the content of the file that was closed first to where it
// stays, and returns whether there was one.
func (s *scratches) packOldest(v *Volume) bool {
	s.mu.Lock()
	if len(s.idle) == 0 {
		s.mu.Unlock()
		return false
	}
	in := s.idle[0]
	s.idle[0] = nil
	s.idle = s.idle[1:]
	s.mu.Unlock()
	v.packIdle(in)
	return true
}

func (s *scratches) close() {
	if s.sent == nil {
		return
	}
	s.once.Do(func() {
		s.mu.Lock()
		s.stop = true
		s.idle = nil
		s.more.Signal()
		s.mu.Unlock()
	})
	<-s.sent
	for {
		select {
		case fd := <-s.ready:
			unix.Close(fd)
		default:
			return
		}
	}
}

// take returns an empty scratch.
func (s *scratches) take(v *Volume) (*object, error) {
	fd := -1
	for fd < 0 {
		select {
		case fd = <-s.ready:
		default:
			// Those that write new files pack old ones when nobody else comes to
			// it: that is cheaper than a new scratch, and bounds their number.
			if s.packOldest(v) {
				continue
			}
			var err error
			if fd, err = v.store.newScratch(); err != nil {
				return nil, err
			}
		}
	}
	return &object{s: v.store, fd: fd, refs: 1, pool: s}, nil
}

// recycle takes a scratch that nobody uses any more back, if it is wanted.
func (s *scratches) recycle(fd int, known bool) {
	if len(s.ready) < cap(s.ready) && (known || alone(fd)) && unix.Ftruncate(fd, 0) == nil {
		// ext4 takes a file that was cut to nothing for one that is about to be
		// replaced, and writes it to disk at once when it is next closed. Closing
		// it while it is empty makes it forget that.
		if again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			unix.Close(again)
		}
		select {
		case s.ready <- fd:
			return
		default:
		}
	}
	unix.Close(fd)
}

// rest queues a closed file of the run whose content is in a scratch.
func (s *scratches) rest(in *inode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, in)
	if len(s.idle) > idleMax {
		s.more.Signal()
	}
}

// packIdle moves the content of a closed file to where it stays.
func (v *Volume) packIdle(in *inode) {
	v.mu.RLock()
	f := in.file
	v.mu.RUnlock()
	if f == nil {
		return
	}
	// Whoever calls may hold another file's io.
	if !f.io.TryLock() {
		v.mu.Lock()
		f.resting = false
		v.mu.Unlock()
		return
	}
	defer v.unlockFile(in, f)
	v.mu.Lock()
	f.resting = false
	v.mu.Unlock()
	if f.scratch == nil || f.open != nil {
		return
	}
	var p packedContent
	var err error
	if small := alone(f.scratch.fd); small {
		p, err = v.packScratch(f.scratch.fd, nil)
	} else {
		p.size = 1 // still mapped by somebody: it cannot move
	}
	if err == nil && p.obj == 0 && p.size > 0 {
		_, err = v.keepScratch(in, f)
		p.obj = 0
		if err == nil {
			return
		}
	}
	if err != nil {
		return // the disk is full: End tries again and tells
	}
	v.mu.Lock()
	if in.file != f || in.nlink == 0 {
		v.mu.Unlock()
		v.reap(p.obj, p.size)
		return
	}
	o := f.scratch
	in.learn(&p.st)
	f.scratch, f.own, f.fresh, f.obj, f.lay, f.sum = nil, false, true, p.obj, nil, p.hash
	v.mu.Unlock()
	o.alone = true
	o.put()
}

// keepScratch makes the scratch of a file an object, where its content stays. io
// is held for writing. moved says that it took a copy.
func (v *Volume) keepScratch(in *inode, f *file) (moved bool, err error) {
	o := f.scratch
	id, linked, err := v.store.keep(o.fd)
	if err != nil {
		return false, err
	}
	v.step("scratch kept")
	v.mu.Lock()
	f.obj, f.scratch = id, nil
	if linked && f.byKernel() && f.open.claim == 0 {
		v.claims.live[id]++
		f.open.claim = id
	}
	v.mu.Unlock()
	if linked {
		o.name(id)
	}
	o.put()
	return !linked, nil
}

// packedContent is what packScratch found.
type packedContent struct {
	obj  uint64
	size uint64
	hash digest.Hash
	st   unix.Stat_t
}

// packScratch copies a small content to a pack. obj stays 0 when it is too large.
func (v *Volume) packScratch(fd int, buf []byte) (p packedContent, err error) {
	if err := unix.Fstat(fd, &p.st); err != nil {
		return p, err
	}
	p.size = uint64(p.st.Size)
	if p.size > packBelow {
		return p, nil
	}
	if uint64(cap(buf)) < p.size {
		buf = make([]byte, p.size)
	}
	buf = buf[:p.size]
	if n, err := fdReader(fd).ReadAt(buf, 0); uint64(n) < p.size {
		return p, fmt.Errorf("read a new file: %w", err)
	}
	p.hash = digest.Sum(buf)
	p.obj, err = v.pack(buf)
	return p, err
}
