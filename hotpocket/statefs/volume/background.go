package volume

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// sweeper removes object files in the background.
type sweeper struct {
	mu      sync.Mutex
	more    *sync.Cond
	list    []corpse
	stopped bool
	busy    bool
	idle    *sync.Cond
	done    chan struct{}
}

// wait waits until everything is removed that is to be removed by now.
func (s *sweeper) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for (len(s.list) > 0 || s.busy) && !s.stopped {
		s.idle.Wait()
	}
}

func (s *sweeper) start(v *Volume) {
	s.more, s.idle = sync.NewCond(&s.mu), sync.NewCond(&s.mu)
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		for {
			s.mu.Lock()
			s.busy = false
			s.idle.Broadcast()
			for len(s.list) == 0 && !s.stopped {
				s.more.Wait()
			}
			list := s.list
			s.list, s.busy = nil, true
			s.mu.Unlock()
			if len(list) == 0 {
				return
			}
			for _, c := range list {
				if packed(c.id) {
					v.unpack(c.id, c.size)
					continue
				}
				v.step("before an object is removed")
				if err := v.store.remove(c.id); err != nil {
					v.log.Warn("cannot remove an object", "object", objectName(c.id), "error", err)
				}
			}
		}
	}()
}

// stop ends the work after what is left of it is done.
func (s *sweeper) stop() {
	if s.done == nil {
		return
	}
	s.mu.Lock()
	s.stopped = true
	s.more.Signal()
	s.idle.Broadcast()
	s.mu.Unlock()
	<-s.done
}

// reap has an object removed, or the place of a content of the given size in a
// pack given back, that nothing refers to any more.
func (v *Volume) reap(id, size uint64) {
	if id == 0 {
		return
	}
	s := &v.sweep
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, corpse{id: id, size: size})
	s.more.Signal()
}

// worker calls a function in a goroutine of its own whenever it was woken since
// the last call began.
type worker struct {
	kick chan struct{}
	quit chan struct{}
	done chan struct{}
	once sync.Once
}

func (w *worker) start(work func()) {
	w.kick, w.quit, w.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(w.done)
		for {
			select {
			case <-w.kick:
			case <-w.quit:
				return
			}
			work()
		}
	}()
}

// stop waits for a call that is under way. It does nothing before start.
func (w *worker) stop() {
	if w.done == nil {
		return
	}
	w.once.Do(func() { close(w.quit) })
	<-w.done
}

func (w *worker) wake() {
	if w.kick == nil {
		return
	}
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// flusher makes durable in the background what runs left: objects, then the log,
// and notes how far.
type flusher struct {
	worker
	mu       sync.Mutex
	unsynced map[uint64]bool
	all      bool // too many to name them
}

func (f *flusher) start(v *Volume) {
	f.worker.start(func() {
		if err := v.flushOnce(); err != nil {
			v.log.Error("cannot make the state durable", "error", err)
			return
		}
		if err := v.compact(); err != nil {
			v.log.Error("cannot compact the log of the state", "error", err)
		}
	})
}

// flushEach is up to how many objects are flushed one by one. Above, the whole
// file system is.
const flushEach = 64

// add names objects that are not durable yet.
func (f *flusher) add(ids ...uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all {
		return
	}
	if f.unsynced == nil {
		f.unsynced = make(map[uint64]bool)
	}
	for _, id := range ids {
		f.unsynced[objectOf(id)] = true
	}
	if len(f.unsynced) > flushEach {
		f.unsynced, f.all = nil, true
	}
}

// flushOnce makes durable what is in the log by now.
func (v *Volume) flushOnce() error {
	// The order matters: whatever a record up to here refers to was named before
	// the record was written.
	upTo, offset := v.tlog.end()
	f := &v.flush
	f.mu.Lock()
	ids, all := f.unsynced, f.all
	f.unsynced, f.all = nil, false
	f.mu.Unlock()
	err := v.syncObjects(ids, all)
	if err == nil {
		err = v.tlog.sync()
	}
	if err != nil {
		f.mu.Lock()
		f.all = true
		f.mu.Unlock()
		return err
	}
	v.step("log flushed")
	v.tlog.keepReserve()
	if err := v.note(recDurable, appendOffset(offset)); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, k := range append(v.kept[:len(v.kept):len(v.kept)], v.agreed) {
		k.durable = k.durable || k.end <= upTo
	}
	v.forgetVersions()
	v.fold.wake()
	return nil
}

// syncObjects makes objects and what lies beside them durable.
func (v *Volume) syncObjects(ids map[uint64]bool, all bool) error {
	if all {
		if err := unix.Syncfs(v.store.root); err != nil {
			return fmt.Errorf("flush objects: %w", err)
		}
		return nil
	}
	shards := make(map[int]bool)
	for id := range ids {
		for _, name := range []string{objectName(id), objectName(id) + sideSuffix} {
			fd, err := retry(func() (int, error) {
				return unix.Openat(v.store.shard(id), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
			})
			if errors.Is(err, unix.ENOENT) {
				continue // no group values, or rolled back
			}
			if err == nil {
				err = unix.Fsync(fd)
				unix.Close(fd)
			}
			if err != nil {
				return fmt.Errorf("flush object %s: %w", name, err)
			}
		}
		shards[v.store.shard(id)] = true
	}
	for fd := range shards {
		if err := unix.Fsync(fd); err != nil {
			return fmt.Errorf("flush folder of objects: %w", err)
		}
	}
	return nil
}

// compactAt is the size in bytes below which a log is left alone.
const compactAt = 8 << 20

// compact replaces the log when it has grown to a multiple of its listing. It is
// called by the flusher, so that nothing is flushed meanwhile.
func (v *Volume) compact() error {
	l := v.tlog
	l.mu.Lock()
	size, base := l.size, l.base
	l.mu.Unlock()
	if size < compactAt || size < 4*base {
		return nil
	}
	v.mu.RLock()
	agreed, damaged := v.agreed, v.damaged
	next := Ino(v.nextIno.Load())
	shown := *agreed
	v.mu.RUnlock()
	if damaged || !agreed.durable {
		return nil
	}
	nl, err := newLog(l.dir, l.num+1, &shown, next)
	if err != nil {
		return err
	}
	v.step("new log written")
	l.mu.Lock()
	defer l.mu.Unlock()
	// What came behind the version's commit is carried over, record by record.
	b := &batch{check: nl.check}
	_, _, err = readLog(l.f, func(kind byte, payload []byte, end int64) error {
		if end+l.shift > agreed.end && kind != recDurable {
			b.record(kind, payload)
		}
		return nil
	})
	b.record(recBoot, []byte(v.boot))
	b.record(recDurable, appendOffset(nl.size))
	if err == nil {
		_, err = pwrite(int(nl.f.Fd()), b.buf, nl.size)
	}
	if err == nil {
		err = nl.f.Sync()
	}
	if err == nil {
		err = nl.rename()
	}
	if err != nil {
		nl.f.Close()
		return fmt.Errorf("carry over the end of the log: %w", err)
	}
	v.step("new log in place")
	l.f.Close()
	at := l.shift + l.size
	l.f, l.num, l.check, l.base = nl.f, nl.num, b.check, nl.base
	l.size = nl.size + int64(len(b.buf))
	l.shift = at - l.size
	return nil
}

// folder brings the blocks of layers into the lowest object of a file, once no
// version is kept that needs what is there.
type folder struct {
	worker
	mu   sync.Mutex
	list map[uint64]*node // files with layers, newest version, by lowest object
}

func (f *folder) start(v *Volume) {
	f.worker.start(func() {
		if err := v.foldAll(); err != nil {
			v.log.Error("cannot fold the layers of a file", "error", err)
		}
	})
}

func (f *folder) add(list []*node) {
	if len(list) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.list == nil {
		f.list = make(map[uint64]*node)
	}
	for _, n := range list {
		f.list[n.obj] = n
	}
}

func (f *folder) stopped() bool {
	select {
	case <-f.quit:
		return true
	default:
		return false
	}
}

// foldAll folds what can be folded now.
func (v *Volume) foldAll() error {
	f := &v.fold
	f.mu.Lock()
	list := make([]*node, 0, len(f.list))
	for _, n := range f.list {
		list = append(list, n)
	}
	f.mu.Unlock()
	for _, n := range list {
		if f.stopped() {
			return nil
		}
		rest, err := v.foldFile(n)
		if errors.Is(err, unix.ENOENT) {
			rest, err = false, nil // the file is gone
		}
		if err != nil {
			return err
		}
		if !rest {
			f.mu.Lock()
			if f.list[n.obj] == n {
				delete(f.list, n.obj)
			}
			f.mu.Unlock()
		}
	}
	return nil
}

// oldest returns the ordinal of the oldest version that is kept or may come back
// after a power failure.
func (v *Volume) oldest() uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if len(v.kept) > 0 {
		return v.kept[0].ord
	}
	if v.agreed.durable {
		return v.agreed.ord
	}
	return 0
}

// foldFile folds the layers of a file that every kept version has, from below.
// rest says that some could not be folded yet.
func (v *Volume) foldFile(n *node) (rest bool, err error) {
	for _, l := range n.layers() {
		if l.folded.Load() {
			continue
		}
		if l.ord > v.oldest() {
			return true, nil
		}
		if err := v.foldLayer(n.obj, l); err != nil {
			return true, err
		}
		l.folded.Store(true)
	}
	return false, nil
}

// foldLayer copies the blocks of a layer to the object below. Until the copy is
// durable and after it, the layer itself is what is read, so that it does not
// matter how far it comes.
func (v *Volume) foldLayer(base uint64, l *layer) error {
	dst, err := v.store.openFd(base, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	src, err := v.store.openFd(l.obj, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(dst, &st); err != nil {
		return err
	}
	v.step("before a layer is folded")
	if uint64(st.Size) > l.limit {
		if err := unix.Ftruncate(dst, int64(l.limit)); err != nil {
			return err
		}
	}
	buf := make([]byte, 256<<10)
	end := uint64(len(l.bits)) * 64
	for i := uint64(0); i < end; {
		in, next := l.bits.runEnd(i, end)
		for off := i * blockSize; in && off < next*blockSize; {
			n, err := fdReader(src).ReadAt(buf[:min(uint64(len(buf)), next*blockSize-off)], int64(off))
			if n == 0 && errors.Is(err, io.EOF) {
				// Behind the end of the layer's file are zeros.
				if err := zeroRange(dst, off, next*blockSize); err != nil {
					return err
				}
				break
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if _, err := pwrite(dst, buf[:n], int64(off)); err != nil {
				return err
			}
			off += uint64(n)
		}
		i = next
	}
	if err := unix.Fsync(dst); err != nil {
		return err
	}
	v.step("a layer is folded")
	return nil
}

// zeroRange makes [off, end) zeros, as far as the file reaches.
func zeroRange(fd int, off, end uint64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(end-off))
}
