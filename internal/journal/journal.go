// Package journal is an append-only log of records that survives a crash at
// any instruction: the one mechanism by which a node keeps what it must not
// forget.
//
// Append puts a record into memory and returns its number (LSN: 1, 2, 3, …); a
// committer goroutine of the log writes what has gathered and syncs it, so
// that all records appended during one sync share the next (group commit), and
// then reports the highest durable LSN. Nobody polls. The log lives in a folder
// of segment files, filled with zeros beforehand so that a sync changes no
// metadata, and locked against a second writer.
//
// It is used by hotpocket/ledger. It never interprets payloads, never reports
// a record as durable before the disk has said so, and after any failed write
// or sync refuses all further work: what a disk holds after a failed sync is
// unknown, and only a restart reads it anew.
package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"sync"

	"evernode/internal/journal/disk"
)

// Errors of a log.
var (
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("journal is closed")
	// ErrFailed is wrapped by every error after a failed write or sync.
	ErrFailed = errors.New("journal has failed")
)

// Options says where and how a log is kept. The zero value of a field is its
// default.
type Options struct {
	FS          disk.FS              // default disk.OS
	SegmentSize int64                // bytes of a segment file; default 8 MiB
	MaxPending  int                  // bytes appended but not yet written, beyond which Append waits; default 64 MiB
	OnDurable   func(durable uint64) // see Log.OnDurable
	Logger      *slog.Logger         // default: discards
	salt        func() uint64        // for tests
}

// Entry is a record found by recovery. Payload is valid only during the call
// that hands it over.
type Entry struct {
	LSN     uint64
	Kind    byte
	Payload []byte
}

// Recovery tells what Open found.
type Recovery struct {
	First, Last uint64 // LSNs present; Last = First-1 when there are no records
	CutBytes    int64  // bytes of records that never became durable, cut off the end
	CutFile     string // the segment that they were cut from, "" when nothing was
	CutOffset   int64  // where in it
}

// Log is an open log. Its methods are safe for concurrent use; the order of
// concurrent Appends is the order of their LSNs.
type Log struct {
	opts Options
	fs   disk.FS
	dir  string
	lock io.Closer
	log  *slog.Logger

	mu        sync.Mutex
	work      sync.Cond // for the committer: something to do
	room      sync.Cond // for Append: pending went down
	next      uint64    // LSN of the next record
	durable   uint64
	marked    uint64 // durable LSN that the last mark told
	at        seal   // segment that the next record goes to
	off       int64  // and where
	pending   []chunk
	size      int // bytes in pending
	spareBuf  []byte
	advanced  chan struct{} // closed and replaced when durable rises; nil when nobody waits
	onDurable func(uint64)
	closing   bool
	err       error
	failed    chan struct{}
	stopped   chan struct{}

	out     disk.File // the segment being written; the committer's own
	outSeal seal
	segs    segments
	readTo  int64 // recovery: end of the valid records of the segment read last
}

// chunk is a run of framed records for one segment.
type chunk struct {
	seal seal
	off  int64
	buf  []byte
}

// Open opens or creates the log in folder dir, hands every record in it to
// visit in order, cuts off what a crash has left half-written, and starts the
// committer. An error of visit ends Open with that error. Damage elsewhere
// than at the torn end is an error that names the file and the offset.
func Open(dir string, opts Options, visit func(Entry) error) (*Log, Recovery, error) {
	opts.setDefaults()
	if opts.SegmentSize < headerSize+markSize {
		return nil, Recovery{}, fmt.Errorf("journal segments of %d bytes are too small", opts.SegmentSize)
	}
	l := &Log{
		opts: opts, fs: opts.FS, dir: dir, log: opts.Logger, onDurable: opts.OnDurable,
		failed: make(chan struct{}), stopped: make(chan struct{}),
	}
	l.work.L, l.room.L = &l.mu, &l.mu
	l.segs = segments{fs: l.fs, dir: dir, size: opts.SegmentSize}
	if err := l.fs.MkdirAll(dir); err != nil {
		return nil, Recovery{}, fmt.Errorf("making journal folder: %w", err)
	}
	lock, err := l.fs.Lock(path.Join(dir, lockName))
	if err != nil {
		return nil, Recovery{}, fmt.Errorf("opening journal: %w", err)
	}
	l.lock = lock
	rec, err := l.recover(visit)
	if err != nil {
		if l.out != nil {
			l.out.Close()
		}
		lock.Close()
		return nil, rec, fmt.Errorf("opening journal: %w", err)
	}
	go l.commitLoop()
	go l.spareLoop()
	return l, rec, nil
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = disk.OS{}
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = 8 << 20
	}
	if o.MaxPending == 0 {
		o.MaxPending = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.salt == nil {
		o.salt = randomSalt
	}
}

// Append adds a record of any kind but 0xFF and at most 1 GiB and returns its
// LSN at once; it is durable when OnDurable or Sync says so. The payload is
// copied. Append waits only while more than MaxPending bytes are not yet
// written. It fails when the log is closed or has failed.
func (l *Log) Append(kind byte, payload []byte) (uint64, error) {
	if kind == kindMark {
		return 0, fmt.Errorf("journal record of kind %#x, which is reserved", kind)
	}
	if len(payload) > maxPayload {
		return 0, fmt.Errorf("journal record of %d bytes, at most %d are allowed", len(payload), maxPayload)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.size > l.opts.MaxPending && l.err == nil && !l.closing {
		l.room.Wait()
	}
	if l.err != nil {
		return 0, l.err
	}
	if l.closing {
		return 0, ErrClosed
	}
	lsn := l.next
	need := int64(recordSize + len(payload))
	if len(l.pending) == 0 && l.durable > l.marked {
		need += markSize
	}
	if l.off+need > l.opts.SegmentSize && l.off > headerSize {
		l.at = seal{first: lsn, salt: l.opts.salt()}
		l.off = headerSize
	}
	if len(l.pending) == 0 && l.durable > l.marked {
		var mark [8]byte
		binary.BigEndian.PutUint64(mark[:], l.durable)
		l.put(kindMark, mark[:])
		l.marked = l.durable
	}
	l.put(kind, payload)
	l.next++
	l.work.Signal()
	return lsn, nil
}

// put frames a record at the current position. The caller holds mu.
func (l *Log) put(kind byte, payload []byte) {
	n := len(l.pending)
	if n == 0 || l.pending[n-1].seal != l.at {
		l.pending = append(l.pending, chunk{seal: l.at, off: l.off, buf: l.spareBuf[:0]})
		l.spareBuf = nil
		n++
	}
	c := &l.pending[n-1]
	c.buf = appendRecord(c.buf, l.at, l.off, kind, payload)
	l.off += int64(recordSize + len(payload))
	l.size += recordSize + len(payload)
}

// Next returns the LSN that the next record will get.
func (l *Log) Next() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// Durable returns the highest LSN up to which every record is durable.
func (l *Log) Durable() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable
}

// OnDurable sets the function that the committer goroutine calls with the
// highest durable LSN after each sync. It must not wait for anything that
// waits for the log. A nil function is none.
func (l *Log) OnDurable(f func(durable uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onDurable = f
}

// Sync waits until the record lsn is durable.
func (l *Log) Sync(ctx context.Context, lsn uint64) error {
	for {
		l.mu.Lock()
		if l.durable >= lsn {
			l.mu.Unlock()
			return nil
		}
		if l.err != nil {
			defer l.mu.Unlock()
			return l.err
		}
		if lsn >= l.next {
			defer l.mu.Unlock()
			return fmt.Errorf("journal record %d does not exist, the last is %d", lsn, l.next-1)
		}
		if l.advanced == nil {
			l.advanced = make(chan struct{})
		}
		advanced := l.advanced
		l.mu.Unlock()
		select {
		case <-advanced:
		case <-l.failed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Failed is closed when the log has failed; Err then tells why.
func (l *Log) Failed() <-chan struct{} { return l.failed }

// Err returns the error that the log has failed with, or nil.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Fail makes the log fail with err, for a user of the log that can no longer
// keep what depends on it: nothing becomes durable any more.
func (l *Log) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail(err)
}

func (l *Log) fail(err error) {
	if l.err != nil {
		return
	}
	l.err = fmt.Errorf("%w: %w", ErrFailed, err)
	l.log.Error("journal has failed; the node must stop", "folder", l.dir, "error", err)
	close(l.failed)
	l.work.Broadcast()
	l.room.Broadcast()
}

// Close makes everything appended durable, stops the committer and frees the
// folder. It returns the error of a log that has failed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		<-l.stopped
		return l.Err()
	}
	l.closing = true
	l.work.Broadcast()
	l.room.Broadcast()
	l.mu.Unlock()
	<-l.stopped
	l.segs.close()
	if l.out != nil {
		l.out.Close()
	}
	if err := l.lock.Close(); err != nil {
		return fmt.Errorf("unlocking journal: %w", err)
	}
	return l.Err()
}

// Truncate drops the segments that hold only records before lsn. It waits for
// the disk and is meant for a background goroutine.
func (l *Log) Truncate(before uint64) error {
	if err := l.segs.dropBefore(before); err != nil {
		err = fmt.Errorf("truncating journal: %w", err)
		l.Fail(err)
		return err
	}
	return nil
}
