// Package ledger keeps what a node must not lose: its promises to the other
// nodes, the closed ledgers with their certificates, their raw inputs and
// outputs, and a few values of the node's own.
//
// Everything goes through one journal (internal/journal), so that one stream of
// syncs serves promises and ledgers alike and their order is kept. Once a
// record is durable there, a goroutine of the store writes ledgers and raw data
// to shard files, which serve the queries; when enough has gathered, the
// shards are synced, a checkpoint is put into the journal and the journal
// before it is dropped. After a crash the rest of the journal is applied to the
// shards again, which changes nothing that is already right. Shards are deleted
// whole when the history settings no longer want them (spec/hotpocket.md
// sections 3.3 and 4.8).
//
// It is called by the node's wiring. It does not interpret promises and ledger
// bodies, verifies no certificate, and never says that something is durable
// before the disk has said so.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"evernode/internal/journal"
	"evernode/internal/journal/disk"
	"evernode/internal/wire"
)

// History says how much is kept.
type History string

// The values of hp.cfg's node.history.
const (
	Custom History = "custom"
	Full   History = "full"
)

// Ledgers per shard, as in the original (spec/hotpocket.md section 4.8).
const (
	PrimaryShard = 262144
	RawShard     = 4096
)

// Errors that callers tell apart.
var (
	// ErrOrder is wrapped when a ledger does not fit to those stored.
	ErrOrder = errors.New("ledger does not fit the chain")
	// ErrDropped is wrapped when a ledger is older than the history kept.
	ErrDropped = errors.New("ledger is older than the history that is kept")
)

// Options says how a store works. Zero values of all but History,
// MaxPrimary and MaxRaw mean defaults.
type Options struct {
	History    History      // "" = Custom
	MaxPrimary uint64       // Custom: shards of ledgers kept; at least 1, 0 counts as 1
	MaxRaw     uint64       // Custom: shards of raw data kept; 0 = none
	Logger     *slog.Logger // default: discards

	FS             disk.FS // default: the machine's
	PrimaryShard   uint64  // ledgers per primary shard; default PrimaryShard
	RawShard       uint64  // ledgers per raw shard; default RawShard
	SegmentSize    int64   // bytes of a journal segment; default 8 MiB
	CheckpointSize int     // bytes of journal after which a checkpoint is made; default 8 MiB
	MaxBacklog     int     // bytes of ledgers and raw data not yet in shards, beyond which appending waits; default 128 MiB
}

// Recovered tells what Open has found.
type Recovered struct {
	Fresh    bool     // nothing was ever stored here
	Last     Record   // the last closed ledger; Seq 0 when there is none
	Promises [][]byte // made after Last and not replaced, oldest first
	LSN      uint64   // of the last record found
	Cut      int64    // bytes of records that a crash had left unfinished, and that never counted as durable
}

// Store is an open store. Its methods are safe for concurrent use; the order of
// appends by one goroutine is the order on disk.
type Store struct {
	opts    Options
	fs      disk.FS
	dir     string
	log     *slog.Logger
	journal *journal.Log
	primary *shards
	raw     *shards
	blobs   blobs

	mu      sync.Mutex
	room    sync.Cond // for appends: the backlog went down
	st      state
	queue   []item            // appended, not yet in the shards
	ledgers map[uint64]Record // the ledgers in queue
	raws    map[rawKey][]byte // the raw data in queue
	backlog int               // bytes in queue
	since   int               // bytes of journal since the last checkpoint
	due     bool              // a checkpoint is wanted whatever since says
	stopped bool              // the applier does no more: Close was called, or the store has failed
	closed  bool
	kept    uint64        // LSN of the last finished checkpoint
	durable atomic.Uint64 // LSN
	tell    atomic.Pointer[func(uint64)]
	wake    chan struct{} // one element: durable rose, or a checkpoint is due
	closing chan struct{}
	done    chan struct{} // the applier has ended
}

// item is a record on its way to the shards.
type item struct {
	lsn    uint64
	ledger Record // Seq 0: raw data
	raw    rawKey
	data   []byte
}

type rawKey struct {
	seq  uint64
	part int
}

func (it item) size() int { return len(it.ledger.Body) + len(it.data) + 200 }

func (o *Options) setDefaults() error {
	switch o.History {
	case "":
		o.History = Custom
	case Custom, Full:
	default:
		return fmt.Errorf("history is %q, want %q or %q", o.History, Custom, Full)
	}
	o.MaxPrimary = max(o.MaxPrimary, 1)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.FS == nil {
		o.FS = disk.OS{}
	}
	if o.PrimaryShard == 0 {
		o.PrimaryShard = PrimaryShard
	}
	if o.RawShard == 0 {
		o.RawShard = RawShard
	}
	if o.PrimaryShard > math.MaxUint32/2 || o.RawShard > math.MaxUint32/4 {
		return fmt.Errorf("shards of %d and %d ledgers are too large", o.PrimaryShard, o.RawShard)
	}
	if o.CheckpointSize == 0 {
		o.CheckpointSize = 8 << 20
	}
	if o.MaxBacklog == 0 {
		o.MaxBacklog = 128 << 20
	}
	return nil
}

// Open opens or creates the store in folder dir. A second process is refused.
// Files that are damaged, and files that something removed, give an error that
// names them: a node that has forgotten its promises must not go on by itself.
func Open(ctx context.Context, dir string, opts Options) (*Store, Recovered, error) {
	if err := opts.setDefaults(); err != nil {
		return nil, Recovered{}, err
	}
	s := &Store{
		opts: opts, fs: opts.FS, dir: dir, log: opts.Logger,
		ledgers: map[uint64]Record{}, raws: map[rawKey][]byte{},
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
	s.room.L = &s.mu
	s.blobs = blobs{fs: opts.FS, dir: path.Join(dir, "blobs")}
	rec, err := s.open(ctx)
	if err != nil {
		s.closeFiles()
		return nil, rec, fmt.Errorf("opening ledger store %s: %w", dir, err)
	}
	go s.applyLoop()
	return s, rec, nil
}

func (s *Store) open(ctx context.Context) (Recovered, error) {
	var rec Recovered
	if err := s.fs.MkdirAll(s.dir); err != nil {
		return rec, err
	}
	bytes := 0
	// The shards are opened by the first record: before that the journal's lock
	// is not ours.
	log, found, err := journal.Open(path.Join(s.dir, "journal"), journal.Options{
		FS: s.fs, SegmentSize: s.opts.SegmentSize, Logger: s.log,
	}, func(e journal.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		bytes += len(e.Payload)
		if err := s.openAllShards(); err != nil {
			return err
		}
		return s.replay(e)
	})
	if err != nil {
		return rec, err
	}
	s.journal = log
	s.durable.Store(found.Last)
	s.since = bytes
	if err := s.openAllShards(); err != nil {
		return rec, err
	}
	if found.Last == 0 && len(s.primary.have) > 0 {
		return rec, fmt.Errorf("the journal is empty but there are ledgers in %s: the promises of this node are lost", s.primary.dir)
	}
	if err := s.blobs.open(); err != nil {
		return rec, err
	}
	s.raise()
	if s.unwanted() {
		s.due = true
	}
	log.OnDurable(s.onDurable)
	s.poke()
	rec.Fresh = found.Last == 0
	rec.LSN, rec.Cut = found.Last, found.CutBytes
	rec.Last = s.st.last.clone()
	for _, p := range s.st.promises {
		rec.Promises = append(rec.Promises, slices.Clone(p))
	}
	if rec.Cut > 0 {
		s.log.Info("cut an unfinished end of the journal", "file", found.CutFile, "offset", found.CutOffset, "bytes", found.CutBytes)
	}
	return rec, nil
}

func (s *Store) openAllShards() (err error) {
	if s.primary == nil {
		if s.primary, err = openShards(s.fs, path.Join(s.dir, "primary"), s.opts.PrimaryShard, true); err != nil {
			return err
		}
	}
	if s.raw == nil {
		s.raw, err = openShards(s.fs, path.Join(s.dir, "raw"), s.opts.RawShard*parts, false)
	}
	return err
}

func (s *Store) closeFiles() {
	if s.journal != nil {
		s.journal.Close()
	}
	for _, sh := range []*shards{s.primary, s.raw} {
		if sh != nil {
			sh.close()
		}
	}
}

// replay applies a record of the journal once more.
func (s *Store) replay(e journal.Entry) error {
	switch e.Kind {
	case kindPromise, kindReplacePromise:
		s.st.addPromise(slices.Clone(e.Payload), e.Kind == kindReplacePromise)
	case kindLedger, kindStart, kindBackfill:
		r, err := parseRecord(e.Payload)
		if err != nil {
			return err
		}
		if e.Kind == kindBackfill {
			if span, ok := s.st.newest(); !ok || r.Seq != span.from-1 {
				// It came before the checkpoint from which we know the spans.
				s.log.Debug("back-filled ledger from before the checkpoint", "ledger", r.Seq)
			} else {
				s.st.extendDown(r.Seq)
			}
		} else {
			s.st.advance(r)
			s.raise()
		}
		return s.putLedger(r)
	case kindRaw:
		seq, data, err := parseRaw(e.Payload)
		if err != nil {
			return err
		}
		for part, b := range data {
			if err := s.putRaw(rawKey{seq, part}, b); err != nil {
				return err
			}
		}
	case kindMeta:
		r := wire.NewReader(e.Payload)
		name, value := r.String(maxName), r.Bytes(MaxMeta)
		if err := r.Close(); err != nil {
			return fmt.Errorf("named value: %w", err)
		}
		s.st.setMeta(name, value)
	case kindCheckpoint:
		st, err := parseState(e.Payload)
		if err != nil {
			return err
		}
		s.st = *st
	default:
		return fmt.Errorf("record of unknown kind %d: written by a newer version of this program", e.Kind)
	}
	return nil
}

// parseRaw splits a journal record into the number of the ledger and the parts.
func parseRaw(b []byte) (seq uint64, data [parts][]byte, err error) {
	r := wire.NewReader(b)
	seq = r.U64()
	for part := range data {
		data[part] = r.View(MaxRaw)
	}
	if err := r.Close(); err != nil {
		return 0, data, fmt.Errorf("raw data: %w", err)
	}
	return seq, data, nil
}

// OnDurable sets the function that is called, from the journal's committer
// goroutine, with the highest LSN up to which everything is durable. It must
// hand the number on and return: it must not call the Store and must not wait
// for anything that appends.
func (s *Store) OnDurable(f func(lsn uint64)) { s.tell.Store(&f) }

func (s *Store) onDurable(lsn uint64) {
	s.durable.Store(lsn)
	s.poke()
	if f := s.tell.Load(); f != nil && *f != nil {
		(*f)(lsn)
	}
}

func (s *Store) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Durable returns the highest LSN up to which everything is durable.
func (s *Store) Durable() uint64 { return s.durable.Load() }

// Sync waits until the record with the given LSN is durable.
func (s *Store) Sync(ctx context.Context, lsn uint64) error { return s.journal.Sync(ctx, lsn) }

// Failed is closed when the store can keep nothing any more, for a disk that is
// full or failing; Err then tells why. The node must stop.
func (s *Store) Failed() <-chan struct{} { return s.journal.Failed() }

// Err returns what the store has failed with, or nil.
func (s *Store) Err() error { return s.journal.Err() }

// Close makes everything appended durable and frees the folder.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.done
		return s.Err()
	}
	s.closed, s.stopped = true, true
	s.room.Broadcast()
	s.mu.Unlock()
	// The applier goes first: what it leaves undone is in the journal.
	close(s.closing)
	<-s.done
	err := s.journal.Close()
	s.closeFiles()
	return err
}

// raise forgets ledgers that the history settings no longer want; their files
// go after the next checkpoint, which tells recovery that they are forgotten.
func (s *Store) raise() {
	if s.st.raiseFloor(s.keepFrom()) {
		s.due = true
	}
}

// rawFloor returns the first ledger whose raw data is kept.
func (s *Store) rawFloor(last uint64) uint64 {
	if s.opts.History == Full {
		return 0
	}
	if s.opts.MaxRaw == 0 {
		return math.MaxUint64
	}
	shard := last / s.opts.RawShard
	if shard < s.opts.MaxRaw {
		return 0
	}
	return (shard - s.opts.MaxRaw + 1) * s.opts.RawShard
}
