package volume

import (
	"errors"
	"io"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// copyBelow is the size in bytes up to which an agreed file is copied when it is
// opened for writing, so that the kernel can write the copy itself. Above, only
// the blocks that change go into a layer of their own, through this process.
const copyBelow = 256 << 10

// File is an open regular file of the working tree. It must be closed, and may
// be used by many goroutines.
type File struct {
	v      *Volume
	in     *inode
	f      *file
	open   *openState
	run    uint64 // the run that may write through it, 0 when opened for reading
	closed atomic.Bool
}

// Ino returns the number of the file.
func (h *File) Ino() Ino { return h.in.ino }

// Backing returns a descriptor that the kernel may read and, when the file is
// open for writing, write itself, or -1 when every call has to come here. It is
// valid until Close. All Files of one Ino that are open at a time have a backing
// of the same file, or all have none. key names that backing file: Files with
// equal keys may share what the kernel registered for one of them, as long as
// one of them is open.
func (h *File) Backing() (fd int, key uint64) {
	h.v.mu.RLock()
	defer h.v.mu.RUnlock()
	if h.open.served || h.open.plain == nil {
		return -1, 0
	}
	return h.open.plain.fd, h.open.key
}

// lockFile returns the content of a regular file with its io held for writing.
// With write the working tree has to be open for changes, and the file counts as
// changed from here on: End waits for io. With live the file must not be one
// whose names have all been removed.
func (v *Volume) lockFile(ino Ino, write bool) (*inode, *file, error) {
	for {
		v.mu.Lock()
		in, err := v.get(ino)
		switch {
		case err != nil:
		case write && !v.writable:
			err = unix.EROFS
		case in.isDir():
			err = unix.EISDIR
		case !in.isFile():
			err = unix.EINVAL
		}
		if err != nil {
			v.mu.Unlock()
			return nil, nil, err
		}
		f := in.file
		if f == nil {
			f = &file{obj: in.n.obj, lay: in.n.layers(), hot: v.hot[ino]}
			in.file = f
		}
		v.mu.Unlock()
		f.io.Lock()
		v.mu.Lock()
		if in.file == f && v.live[ino] == in && (!write || v.writable) {
			if write {
				v.touch(in)
				f.changed = true
			}
			v.mu.Unlock()
			return in, f, nil
		}
		v.mu.Unlock()
		f.io.Unlock()
	}
}

// unlockFile releases io, and forgets what need not be kept.
func (v *Volume) unlockFile(in *inode, f *file) {
	v.mu.Lock()
	if in.nlink == 0 && in.file == f {
		v.goneLocked(in, f)
	}
	if in.file == f && f.open == nil && !f.own && f.over == nil && !f.changed {
		in.file = nil
	}
	v.mu.Unlock()
	f.io.Unlock()
}

// Create makes a regular file with permission bits mode and opens it with the
// given open(2) flags. EEXIST when the name is taken, also without O_EXCL: the
// kernel looks names up before.
func (v *Volume) Create(parent Ino, name string, mode, flags uint32) (Attr, *File, error) {
	if !v.open4Writing.Load() {
		return Attr{}, nil, unix.EROFS
	}
	o, err := v.scratch.take(v)
	if err != nil {
		return Attr{}, nil, errno(err)
	}
	fail := func(err error) (Attr, *File, error) {
		o.put()
		return Attr{}, nil, err
	}
	if err := v.change(); err != nil {
		return fail(err)
	}
	defer v.mu.Unlock()
	p, err := v.place(parent, name)
	if err != nil {
		return fail(err)
	}
	in := v.make(p, name, unix.S_IFREG|mode&permBits, nil)
	f := &file{own: true, scratch: o, changed: true}
	f.open = &openState{refs: 1, plain: o.share(), served: !v.cfg.Passthrough, key: v.lastKey.Add(1)}
	in.file = f
	h := &File{v: v, in: in, f: f, open: f.open}
	if writes(flags) {
		f.open.writers++
		h.run = v.run.id
	}
	return in.attr(), h, nil
}

func writes(flags uint32) bool {
	return flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0
}

// errno makes of an error of the disk what the kernel gets.
func errno(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// OpenFile opens a regular file with the given open(2) flags, of which the access
// mode, O_TRUNC and O_APPEND matter.
func (v *Volume) OpenFile(ino Ino, flags uint32) (*File, error) {
	write := writes(flags)
	in, f, err := v.lockFile(ino, write)
	if err == nil && write && f.byKernel() && !f.own {
		// Perhaps it is closed and the kernel has not told yet.
		in, f, err = v.awaitClose(in, f)
	}
	if err != nil {
		return nil, err
	}
	defer v.unlockFile(in, f)
	if write {
		if err := v.makeWritable(in, f, flags&unix.O_TRUNC != 0); err != nil {
			return nil, errno(err)
		}
	}
	if f.open == nil {
		if err := v.openState(in, f, write); err != nil {
			return nil, errno(err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	h := &File{v: v, in: in, f: f, open: f.open}
	f.open.refs++
	if write {
		f.open.writers++
		h.run = v.runID.Load()
	}
	return h, nil
}

// byKernel reports whether the kernel has the content open itself.
func (f *file) byKernel() bool { return f.open != nil && !f.open.served }

// awaitClose gives the kernel a moment to tell that a file was closed, which
// spares a copy of it. It unlocks the file and locks it again.
func (v *Volume) awaitClose(in *inode, f *file) (*inode, *file, error) {
	v.mu.Lock()
	if f.open.gone == nil {
		f.open.gone = make(chan struct{})
	}
	gone := f.open.gone
	v.mu.Unlock()
	v.unlockFile(in, f)
	t := time.NewTimer(2 * time.Millisecond)
	defer t.Stop()
	select {
	case <-gone:
	case <-t.C:
	}
	return v.lockFile(in.ino, true)
}

// openState opens the content for the first File.
func (v *Volume) openState(in *inode, f *file, write bool) error {
	s := &openState{key: v.lastKey.Add(1), served: !v.cfg.Passthrough}
	switch {
	case f.over != nil:
		s.served = true
	case f.scratch != nil:
		s.plain = f.scratch.share()
	case len(f.lay) > 0 || f.obj == 0 || packed(f.obj):
		c, err := v.openContent(f.obj, f.lay, in.size)
		if err != nil {
			return err
		}
		s.layers, s.served = c, true
	default:
		o, err := v.store.get(f.obj, f.own)
		if err != nil {
			return err
		}
		s.plain = o
		if f.hot && !f.own {
			s.served = true
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !s.served && f.scratch == nil {
		// A view that lets the kernel read this object keeps us from doing so:
		// one day the object may have to become the run's.
		if v.claims.views[f.obj] > 0 {
			s.served = true
		} else {
			v.claims.live[f.obj]++
			s.claim = f.obj
		}
	}
	f.open = s
	return nil
}

// claims count which objects the kernel has open itself, for the working tree and
// for views. An object is never in both. Guarded by Volume.mu.
type claims struct{ live, views map[uint64]int }

func drop(m map[uint64]int, id uint64) {
	if m[id]--; m[id] <= 0 {
		delete(m, id)
	}
}

// makeWritable gives a file a content that the run may change: an object of its
// own or an overlay. With trunc the content becomes empty. io is held for
// writing.
func (v *Volume) makeWritable(in *inode, f *file, trunc bool) error {
	byKernel := f.byKernel()
	switch {
	case f.own:
		if !trunc {
			return nil
		}
		if f.open != nil {
			return unix.Ftruncate(f.open.plain.fd, 0)
		}
		return v.truncateOwn(in, f, 0)
	case byKernel:
		if err := v.exchange(in, f); err != nil {
			return err
		}
		if trunc {
			return unix.Ftruncate(f.open.plain.fd, 0)
		}
		return nil
	case trunc:
		return v.becomeOwn(in, f, 0, true)
	case f.over != nil:
		return nil
	case in.size <= copyBelow:
		return v.becomeOwn(in, f, in.size, false)
	}
	return v.beginOverlay(in, f)
}

// becomeOwn moves the first size bytes of a file into a fresh object. io is held
// for writing, and no kernel reads the file by itself.
func (v *Volume) becomeOwn(in *inode, f *file, size uint64, written bool) error {
	o, err := v.scratch.take(v)
	if err != nil {
		return err
	}
	fd := o.fd
	fail := func(err error) error {
		o.put()
		return err
	}
	if size > 0 {
		c, err := v.reader(in, f)
		if err != nil {
			return fail(err)
		}
		if c.base != nil && len(c.over) == 0 && c.off == 0 && size > packBelow {
			c.base.mu.RLock()
			err = copyFd(fd, c.base.fd, size)
			c.base.mu.RUnlock()
		} else {
			err = copyPlain(fd, c, size)
		}
		c.close()
		if err != nil {
			return fail(err)
		}
	}
	if !written {
		if err := v.setObjectTimes(fd, in); err != nil {
			return fail(err)
		}
	}
	v.mu.Lock()
	old, oldLayers := (*object)(nil), (*content)(nil)
	if f.open != nil {
		old, oldLayers = f.open.plain, f.open.layers
		f.open.plain, f.open.layers = o.share(), nil
	}
	over, fresh, was := f.over, uint64(0), in.size
	if f.fresh {
		fresh = f.obj
	}
	f.obj, f.own, f.lay, f.over, f.scratch, f.fresh = 0, true, nil, nil, o, false
	t := now()
	in.size = size
	if written {
		in.mtime, in.ctime = t, t
	}
	v.mu.Unlock()
	if old != nil {
		old.put()
	}
	if oldLayers != nil {
		oldLayers.close()
	}
	if over != nil {
		over.close()
		v.reap(over.obj, 0)
	}
	v.reap(fresh, was)
	return nil
}

// reader returns the content as it is, to be closed by the caller. io is held.
func (v *Volume) reader(in *inode, f *file) (*content, error) {
	if f.over != nil {
		c, err := v.openContent(f.obj, f.lay, f.over.size.Load())
		if err != nil {
			return nil, err
		}
		o, err := v.store.get(f.over.obj, false)
		if err != nil {
			c.close()
			return nil, err
		}
		c.over = append(c.over, openLayer{&f.over.layer, o})
		return c, nil
	}
	return v.openContent(f.obj, f.lay, in.size)
}

// copyPlain writes the first size bytes of a content to an empty file, leaving
// out what is zero.
func copyPlain(fd int, c io.ReaderAt, size uint64) error {
	buf := make([]byte, min(size, 1<<20))
	for off := uint64(0); off < size; {
		b := buf[:min(uint64(len(buf)), size-off)]
		if err := readOrZero(c, b, off); err != nil {
			return err
		}
		if !allZero(b) {
			if _, err := pwrite(fd, b, int64(off)); err != nil {
				return err
			}
		}
		off += uint64(len(b))
	}
	return unix.Ftruncate(fd, int64(size))
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// setObjectTimes gives a copy the modification time of its original, since
// nothing has been written yet.
func (v *Volume) setObjectTimes(fd int, in *inode) error {
	return futimens(fd, in.mtime)
}

// exchange makes the object that the kernel has open the run's. The agreed
// version keeps its content in a durable copy that takes over the object's name,
// so that nothing on disk has to be told.
func (v *Volume) exchange(in *inode, f *file) error {
	old := f.open.plain
	if old.scratch() {
		// The agreed content has moved elsewhere since the file was opened.
		v.mu.Lock()
		f.obj, f.own, f.lay, f.scratch = 0, true, nil, old.share()
		v.mu.Unlock()
		return nil
	}
	id, fd, err := v.store.create()
	if err != nil {
		return err
	}
	fail := func(err error) error {
		unix.Close(fd)
		v.reap(id, 0)
		return err
	}
	if err := copyFd(fd, old.fd, in.size); err != nil {
		return fail(err)
	}
	if err := unix.Fsync(fd); err != nil {
		return fail(err)
	}
	v.step("copy for the agreed version made")
	if err := futimens(old.fd, in.mtime); err != nil {
		return fail(err)
	}
	own, err := v.store.openFd(old.id, unix.O_RDWR)
	if err != nil {
		return fail(err)
	}
	// Whoever reads the agreed version through the open object must not see
	// what the run writes from now on.
	old.mu.Lock()
	err = unix.Renameat2(v.store.shard(id), objectName(id), v.store.shard(old.id), objectName(old.id), unix.RENAME_EXCHANGE)
	if err != nil {
		old.mu.Unlock()
		unix.Close(own)
		return fail(err)
	}
	was := old.fd
	old.fd = fd
	old.mu.Unlock()
	v.step("objects exchanged")
	mine := v.store.adopt(id, own)
	mine.also = was // somebody may be just about to tell the kernel of it
	v.mu.Lock()
	f.open.plain = mine
	f.obj, f.own, f.lay, f.hot = id, true, nil, true
	v.hot[in.ino] = true
	if f.open.claim != 0 {
		drop(v.claims.live, f.open.claim)
		v.claims.live[id]++
		f.open.claim = id
	}
	v.mu.Unlock()
	old.put()
	// The exchange must not be undone by a power failure once the run has
	// written; that would bring the run's content under the agreed name.
	for _, s := range []int{v.store.shard(id), v.store.shard(old.id)} {
		if err := unix.Fsync(s); err != nil {
			return err
		}
	}
	return nil
}

// beginOverlay opens a large agreed file for changes, block by block.
func (v *Volume) beginOverlay(in *inode, f *file) error {
	if len(f.lay) >= maxLayers {
		return v.becomeOwn(in, f, in.size, false)
	}
	below, err := v.openContent(f.obj, f.lay, in.size)
	if err != nil {
		return err
	}
	id, fd, err := v.store.create()
	if err != nil {
		below.close()
		return err
	}
	o := &overlay{layer: layer{obj: id, limit: in.size}, o: v.store.adopt(id, fd), below: below}
	o.size.Store(in.size)
	v.mu.Lock()
	f.over = o
	if f.open != nil && f.open.plain != nil {
		f.open.plain.put()
		f.open.plain = nil
	}
	v.mu.Unlock()
	return nil
}

// maxLayers bounds how many objects a read may have to look at. Layers are
// folded long before, unless somebody holds an old version for long.
const maxLayers = 64

// truncate is truncate(2) and ftruncate(2).
func (v *Volume) truncate(ino Ino, size uint64) error {
	if size > 1<<62 {
		return unix.EFBIG
	}
	in, f, err := v.lockFile(ino, true)
	if err != nil {
		return err
	}
	defer v.unlockFile(in, f)
	return errnoOrNil(v.truncateLocked(in, f, size))
}

func errnoOrNil(err error) error {
	if err == nil {
		return nil
	}
	return errno(err)
}

func (v *Volume) truncateLocked(in *inode, f *file, size uint64) error {
	if !f.own && f.over == nil && !f.byKernel() && size <= copyBelow {
		// Copying what remains is cheaper than a layer over what does not.
		if err := v.becomeOwn(in, f, min(in.size, size), true); err != nil {
			return err
		}
	} else if err := v.makeWritable(in, f, false); err != nil {
		return err
	}
	switch {
	case f.over != nil:
		return f.over.truncate(size)
	case f.open != nil:
		return unix.Ftruncate(f.open.plain.fd, int64(size))
	}
	return v.truncateOwn(in, f, size)
}

// truncateOwn truncates an object of the run that is not open.
func (v *Volume) truncateOwn(in *inode, f *file, size uint64) error {
	fd, done, err := v.ownFd(f)
	if err != nil {
		return err
	}
	defer done()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	v.mu.Lock()
	in.learn(&st)
	v.mu.Unlock()
	return nil
}

// ownFd returns a descriptor of an own content, to write it.
func (v *Volume) ownFd(f *file) (fd int, done func(), err error) {
	switch {
	case f.open != nil:
		return f.open.plain.fd, func() {}, nil
	case f.scratch != nil:
		return f.scratch.fd, func() {}, nil
	}
	fd, err = v.store.openFd(f.obj, unix.O_RDWR)
	return fd, func() { unix.Close(fd) }, err
}

// learn takes over size and times of an object that the kernel wrote.
func (in *inode) learn(st *unix.Stat_t) {
	if m := st.Mtim.Nano(); m != in.mtime || uint64(st.Size) != in.size {
		in.mtime, in.ctime = m, max(in.ctime, m)
	}
	in.size, in.blocks = uint64(st.Size), blocksOf(st)
}

// setTimes is utimensat(2).
func (v *Volume) setTimes(ino Ino, atime, mtime *int64) error {
	v.mu.RLock()
	in, err := v.get(ino)
	regular := err == nil && in.isFile() && in.file != nil && mtime != nil
	v.mu.RUnlock()
	if err != nil {
		return err
	}
	if regular {
		in, f, err := v.lockFile(ino, true)
		if err != nil {
			return err
		}
		defer v.unlockFile(in, f)
		switch {
		case f.over != nil:
			f.over.mtime.Store(*mtime)
		case f.own:
			fd, done, err := v.ownFd(f)
			if err != nil {
				return errno(err)
			}
			defer done()
			if err := futimens(fd, *mtime); err != nil {
				return errno(err)
			}
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil {
				return errno(err)
			}
			v.mu.Lock()
			in.learn(&st)
			v.mu.Unlock()
		}
	}
	if err := v.change(); err != nil {
		return err
	}
	defer v.mu.Unlock()
	if in, err = v.get(ino); err != nil {
		return err
	}
	v.touch(in)
	if atime != nil {
		in.atime = *atime
	}
	if mtime != nil {
		in.mtime = *mtime
	}
	in.ctime = now()
	return nil
}

// mayWrite checks that a File may still write, with io held.
func (h *File) mayWrite() error {
	if h.run == 0 {
		return unix.EBADF
	}
	if h.run != h.v.runID.Load() || !h.v.open4Writing.Load() {
		return unix.EROFS
	}
	return nil
}

// ReadAt reads up to len(p) bytes; fewer, with a nil error, at the end of the
// file.
func (h *File) ReadAt(p []byte, off int64) (int, error) {
	f := h.f
	f.io.RLock()
	defer f.io.RUnlock()
	var r io.ReaderAt
	switch {
	case h.open != f.open:
		return 0, unix.ESTALE // the run was undone
	case f.over != nil:
		r = f.over.content()
	case f.open.plain != nil:
		r = f.open.plain
	default:
		r = f.open.layers
	}
	n, err := r.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, errno(err)
	}
	return n, nil
}

// WriteAt writes all of p. A run that has ended refuses with EROFS.
func (h *File) WriteAt(p []byte, off int64) (int, error) {
	f := h.f
	if off < 0 {
		return 0, unix.EINVAL
	}
	f.io.Lock()
	defer f.io.Unlock()
	if err := h.mayWrite(); err != nil {
		return 0, err
	}
	if h.open != f.open {
		return 0, unix.ESTALE
	}
	if f.over != nil {
		n, err := f.over.writeAt(p, uint64(off))
		return n, errnoOrNil(err)
	}
	n, err := f.open.plain.WriteAt(p, off)
	if n > 0 {
		err = nil
	}
	return n, errnoOrNil(err)
}

// Allocate is fallocate(2) with its mode.
func (h *File) Allocate(mode uint32, off, length int64) error {
	if off < 0 || length <= 0 {
		return unix.EINVAL
	}
	if off+length < 0 || off+length > 1<<62 {
		return unix.EFBIG
	}
	f := h.f
	f.io.Lock()
	defer f.io.Unlock()
	if err := h.mayWrite(); err != nil {
		return err
	}
	if h.open != f.open {
		return unix.ESTALE
	}
	if f.over != nil {
		return errnoOrNil(f.over.allocate(mode, uint64(off), uint64(length)))
	}
	return errnoOrNil(unix.Fallocate(f.open.plain.fd, mode, off, length))
}

// Seek is lseek(2) with SEEK_DATA or SEEK_HOLE. Files in layers count as data
// from beginning to end.
func (h *File) Seek(off int64, whence int) (int64, error) {
	f := h.f
	f.io.RLock()
	defer f.io.RUnlock()
	if h.open != f.open {
		return 0, unix.ESTALE
	}
	if f.over == nil && f.open.plain != nil {
		n, err := unix.Seek(f.open.plain.fd, off, whence)
		return n, errnoOrNil(err)
	}
	size := int64(0)
	if f.over != nil {
		size = int64(f.over.size.Load())
	} else {
		size = int64(f.open.layers.size)
	}
	switch {
	case whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE:
		return 0, unix.EINVAL
	case off < 0 || off >= size:
		return 0, unix.ENXIO
	case whence == unix.SEEK_HOLE:
		return size, nil
	}
	return off, nil
}

// Close ends the use of the file.
func (h *File) Close() error {
	if h.closed.Swap(true) {
		return unix.EBADF
	}
	v, f := h.v, h.f
	f.io.Lock()
	v.mu.Lock()
	s := h.open
	s.refs--
	if h.run != 0 {
		s.writers--
	}
	last, rest := s.refs == 0, false
	var plain *object
	var lay *content
	if (last || h.run != 0 && s.writers == 0) && s == f.open && f.own && s.plain != nil {
		var st unix.Stat_t
		if unix.Fstat(s.plain.fd, &st) == nil {
			h.in.learn(&st)
		}
	}
	if last {
		plain, lay = s.plain, s.layers
		if s.claim != 0 {
			drop(v.claims.live, s.claim)
		}
		if s == f.open {
			f.open = nil
			rest = f.scratch != nil && h.in.nlink > 0 && v.writable && !f.resting
			f.resting = f.resting || rest
		}
		if s.gone != nil {
			close(s.gone)
		}
	}
	if last && v.lastClosed != nil {
		close(v.lastClosed)
		v.lastClosed = nil
	}
	v.mu.Unlock()
	if plain != nil {
		plain.put()
	}
	if lay != nil {
		lay.close()
	}
	v.unlockFile(h.in, f)
	if rest {
		v.scratch.rest(h.in)
	}
	return nil
}

func futimens(fd int, mtime int64) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime)}
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
