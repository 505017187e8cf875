package mount

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// conn is a connection with the kernel: it takes requests, hands them to a
// fuse.RawFileSystem, and sends its answers.
//
// A request costs little more than waking the thread that answers it, so one
// thread, which stays warm, answers them all as long as it answers quickly; two
// that take turns cost half as much again. Before it works on something that may
// take long it lets another one wait for the next request, and a watch does the
// same when an answer takes unexpectedly long.
type conn struct {
	fd    int
	proto *fuse.ProtocolServer
	log   *slog.Logger
	flags uint64 // what the kernel offered

	waiting atomic.Int32  // threads that wait for a request
	threads atomic.Int32  // and those that answer one
	taken   atomic.Uint64 // requests
	asleep  atomic.Bool   // the watch is
	wake    chan struct{}
	stop    chan struct{} // closed when there are no more requests
	end     sync.Once     // closes stop
	loops   sync.WaitGroup
	bufs    sync.Pool
}

const (
	maxThreads = 16
	// watchEvery is how long a request may keep others waiting.
	watchEvery = time.Millisecond
	// watchIdle is after how many looks without a request the watch sleeps.
	watchIdle = 50
	// heavyBytes is from how much data on a request counts as slow.
	heavyBytes = 32 << 10

	headerRoom = 4096 // before and after the data of a request
)

// Numbers of the protocol (linux/fuse.h).
const (
	opOpen        = 14
	opRead        = 15
	opInit        = 26
	opReadDir     = 28
	opInterrupt   = 36
	opFallocate   = 43
	opReadDirPlus = 44

	notifyInvalInode = 2
	notifyInvalEntry = 3

	ioctlBackingOpen  = 0x4010e501
	ioctlBackingClose = 0x4004e502
)

// buffers are what a thread reads requests into and puts answers together in.
type buffers struct{ in, out []byte }

// newConn answers the kernel's first request.
func newConn(fd int, fs fuse.RawFileSystem, opts *fuse.MountOptions, log *slog.Logger) (*conn, error) {
	c := &conn{fd: fd, proto: fuse.NewProtocolServer(fs, opts), log: log, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	c.bufs.New = func() any {
		return &buffers{make([]byte, maxRequest+headerRoom), make([]byte, maxRequest+headerRoom)}
	}
	b := c.bufs.Get().(*buffers)
	defer c.bufs.Put(b)
	n, err := c.read(b.in)
	if err != nil {
		return nil, err
	}
	if n < int(unsafe.Sizeof(fuse.InHeader{}))+16 || opcode(b.in) != opInit {
		return nil, errors.New("the kernel does not begin as it should")
	}
	var in fuse.InitIn
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&in)), unsafe.Sizeof(in)), b.in[:n])
	c.flags = in.Flags64()
	c.answer(b, n)
	return c, nil
}

// read waits for a request.
func (c *conn) read(buf []byte) (int, error) {
	for {
		n, err := unix.Read(c.fd, buf)
		switch err {
		case unix.EINTR, unix.EAGAIN, unix.ENOENT: // ENOENT: it was taken back
			continue
		}
		return n, err
	}
}

func opcode(b []byte) uint32 { return binary.NativeEndian.Uint32(b[4:]) }

// serve answers requests until the file system is unmounted.
func (c *conn) serve() {
	c.threads.Add(1)
	c.waiting.Add(1)
	c.loops.Add(1)
	go c.loop()
	watch := make(chan struct{})
	go func() {
		defer close(watch)
		c.watch()
	}()
	<-c.stop
	<-watch // it starts threads, too
	c.loops.Wait()
}

// another lets one more thread wait for requests, if there is none.
func (c *conn) another() {
	if c.waiting.Load() > 0 {
		return
	}
	if c.threads.Add(1) > maxThreads {
		c.threads.Add(-1)
		return
	}
	c.waiting.Add(1)
	c.loops.Add(1)
	go c.loop()
}

// loop takes requests and answers them, until there is somebody else to do it.
func (c *conn) loop() {
	defer c.loops.Done()
	defer c.threads.Add(-1)
	b := c.bufs.Get().(*buffers)
	defer c.bufs.Put(b)
	for {
		n, err := c.read(b.in)
		if err != nil {
			c.end.Do(func() { close(c.stop) })
			if err != unix.ENODEV && err != unix.ECONNABORTED {
				c.log.Error("cannot get requests from the kernel", "error", err)
			}
			return
		}
		c.waiting.Add(-1)
		c.taken.Add(1)
		if heavy(b.in[:n]) {
			c.another()
		} else if c.asleep.Load() && c.asleep.CompareAndSwap(true, false) {
			select {
			case c.wake <- struct{}{}:
			default:
			}
		}
		c.answer(b, n)
		if c.waiting.Add(1) > 1 {
			// Let the other one stay warm.
			if c.waiting.Add(-1) > 0 {
				return
			}
			c.waiting.Add(1)
		}
	}
}

// heavy reports whether a request may take long: because of its data, or because
// a file may have to be copied before it is written.
func heavy(in []byte) bool {
	if len(in) >= heavyBytes {
		return true
	}
	h := int(unsafe.Sizeof(fuse.InHeader{}))
	switch opcode(in) {
	case opRead, opReadDir, opReadDirPlus:
		// struct fuse_read_in: fh, offset, size
		return len(in) >= h+20 && binary.NativeEndian.Uint32(in[h+16:]) >= heavyBytes
	case opOpen:
		return len(in) >= h+4 && binary.NativeEndian.Uint32(in[h:])&unix.O_ACCMODE != unix.O_RDONLY
	case opFallocate:
		return true
	}
	return false
}

// answer handles one request.
func (c *conn) answer(b *buffers, n int) {
	if opcode(b.in) == opInterrupt {
		// Nothing here waits for long. The kernel does not send these again.
		c.refuse(b.in, unix.ENOSYS)
		return
	}
	m, st := c.proto.HandleRequest([][]byte{b.in[:n]}, [][]byte{b.out})
	switch {
	case m > 0:
		c.write(b.out[:m])
	case st != fuse.OK:
		c.refuse(b.in, unix.Errno(st))
	}
}

// refuse answers a request with an error.
func (c *conn) refuse(in []byte, errno unix.Errno) {
	var out [16]byte
	binary.NativeEndian.PutUint32(out[0:], 16)
	binary.NativeEndian.PutUint32(out[4:], uint32(-int32(errno)))
	copy(out[8:], in[8:16])
	c.write(out[:])
}

// write sends an answer. ENOENT says that nobody waits for it any more.
func (c *conn) write(b []byte) {
	for {
		_, err := unix.Write(c.fd, b)
		switch err {
		case unix.EINTR:
			continue
		case nil, unix.ENOENT, unix.ENODEV, unix.ECONNABORTED:
		default:
			c.log.Error("the kernel does not take an answer", "error", err)
		}
		return
	}
}

// watch lets another thread wait for requests when an answer takes long.
func (c *conn) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var last uint64
	for idle := 0; ; {
		select {
		case <-tick.C:
		case <-c.stop:
			return
		}
		now := c.taken.Load()
		switch {
		case now != last:
			last, idle = now, 0
		case c.waiting.Load() == 0:
			c.another()
		default:
			idle++
		}
		if idle < watchIdle {
			continue
		}
		tick.Stop()
		c.asleep.Store(true)
		select {
		case <-c.wake:
		case <-c.stop:
			return
		}
		tick.Reset(watchEvery)
		idle = 0
	}
}

// notify sends what the kernel did not ask for.
func (c *conn) notify(code int32, body ...[]byte) unix.Errno {
	msg := make([]byte, 16, 64)
	for _, b := range body {
		msg = append(msg, b...)
	}
	binary.NativeEndian.PutUint32(msg[0:], uint32(len(msg)))
	binary.NativeEndian.PutUint32(msg[4:], uint32(code))
	for {
		_, err := unix.Write(c.fd, msg)
		if err == unix.EINTR {
			continue
		}
		if err == nil {
			return 0
		}
		return err.(unix.Errno)
	}
}

// expireEntry makes the kernel forget the entry name of a folder and, when it is
// a folder, what is below it. The kernel takes the folder's lock for it: it must
// not be called while a request about the folder waits for the caller.
func (c *conn) expireEntry(parent uint64, name string) unix.Errno {
	var b [16]byte
	binary.NativeEndian.PutUint64(b[0:], parent)
	binary.NativeEndian.PutUint32(b[8:], uint32(len(name)))
	return c.notify(notifyInvalEntry, b[:], []byte(name), []byte{0})
}

// expireFile makes the kernel forget the attributes of a file or folder, and its
// contents from offset on unless that is negative.
func (c *conn) expireFile(node uint64, offset int64) unix.Errno {
	var b [24]byte
	binary.NativeEndian.PutUint64(b[0:], node)
	binary.NativeEndian.PutUint64(b[8:], uint64(offset))
	return c.notify(notifyInvalInode, b[:])
}

// register lets the kernel read and write a file by itself.
func (c *conn) register(fd int) (int32, unix.Errno) {
	m := fuse.BackingMap{Fd: int32(fd)}
	id, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), ioctlBackingOpen, uintptr(unsafe.Pointer(&m)))
	return int32(id), errno
}

func (c *conn) unregister(id int32) {
	unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), ioctlBackingClose, uintptr(unsafe.Pointer(&id)))
}
