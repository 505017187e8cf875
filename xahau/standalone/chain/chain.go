package chain

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"

	"evernode/internal/journal/disk"
	"evernode/xahau/standalone/shamap"
)

// Config says where and how a chain is kept. The zero value of a field is its
// default.
type Config struct {
	Dir string
	FS  disk.FS // default disk.OS; Memory keeps everything in memory
	// StateLedgers is of how many ledgers the state is kept; default 512.
	StateLedgers uint32
	// HistoryLedgers is how many ledgers are kept with their transactions, at
	// least StateLedgers and rounded up to whole files; default all.
	HistoryLedgers uint32
	CacheBytes     int   // memory for nodes of the state; default 64 MiB
	SegmentBytes   int64 // from which on the next file is begun; default 16 MiB
	// CheckpointBytes is how much a restart has to read at most, apart from the
	// last ledger; default 32 MiB. The index holds back about as many in memory.
	CheckpointBytes int64
	// OnDurable is called by a goroutine of the chain with the last durable
	// ledger after each sync. It must not wait for the chain.
	OnDurable func(seq uint32)
	Log       *slog.Logger // default: discards
}

func (c *Config) setDefaults() {
	if c.FS == nil {
		c.FS = disk.OS{}
	}
	if c.StateLedgers == 0 {
		c.StateLedgers = 512
	}
	if c.HistoryLedgers != 0 {
		c.HistoryLedgers = max(c.HistoryLedgers, c.StateLedgers)
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 64 << 20
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 16 << 20
	}
	if c.CheckpointBytes == 0 {
		c.CheckpointBytes = 32 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Chain is an open chain of ledgers. Its methods are safe for concurrent use.
type Chain struct {
	cfg     Config
	lock    io.Closer
	state   *stream // nodes
	history *stream // ledgers
	cache   *shamap.Cache
	index   *index

	commit  sync.Mutex // held by Commit
	nodes   []byte     // the frames that Commit builds
	ledgers []byte
	wrote   int    // bytes of nodes that the last ledger changed
	cycle   uint64 // nodes before this offset are being refreshed, 0 = none

	mu       sync.Mutex
	work     sync.Cond // for the syncer
	recent   []*info   // ledger s is at s % len
	last     *info     // nil while there is none
	durable  uint32
	advanced chan struct{} // closed and replaced when durable rises; nil when nobody waits
	failed   chan struct{}
	err      error
	closing  bool
	keepErr  error         // why the index cannot be written at the moment
	kept     chan struct{} // closed and replaced when the keeper has done its work once
	settled  uint32        // the last ledger after which it has
	unneeded uint64        // nodes before this offset are needed by no durable state

	first   atomic.Uint32 // first ledger that is there
	kick    chan struct{} // one element: there is work for the keeper
	synced  chan struct{} // closed when the syncer has ended
	stopped sync.WaitGroup
}

func randomSalt() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

// Open opens or creates the chain in a folder. What a crash has left
// half-written is cut off; damage elsewhere is an error that names the file.
func Open(cfg Config) (*Chain, error) {
	cfg.setDefaults()
	c := &Chain{
		cfg: cfg, recent: make([]*info, cfg.StateLedgers),
		failed: make(chan struct{}), kick: make(chan struct{}, 1), kept: make(chan struct{}), synced: make(chan struct{}),
	}
	c.work.L = &c.mu
	if err := cfg.FS.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("making the folder of ledgers: %w", err)
	}
	lock, err := cfg.FS.Lock(path.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("opening the ledgers: %w", err)
	}
	c.lock = lock
	c.state = &stream{fs: cfg.FS, dir: cfg.Dir, name: "state", size: cfg.SegmentBytes, salt: randomSalt}
	c.history = &stream{fs: cfg.FS, dir: cfg.Dir, name: "ledgers", size: cfg.SegmentBytes, salt: randomSalt}
	c.index = &index{fs: cfg.FS, dir: cfg.Dir, log: cfg.Log}
	c.cache = shamap.NewCache(nodeSource{c.state}, shamap.State, cfg.CacheBytes)
	if err := c.recover(); err != nil {
		c.closeFiles()
		return nil, fmt.Errorf("opening the ledgers in %s: %w", cfg.Dir, err)
	}
	c.stopped.Add(2)
	go c.syncLoop()
	go c.keepLoop()
	return c, nil
}

// nodeSource reads nodes for the cache.
type nodeSource struct{ s *stream }

func (n nodeSource) ReadNode(p shamap.Place) ([]byte, error) {
	b, err := n.s.read(p.Off, int(p.Len))
	if errors.Is(err, errGone) {
		return nil, ErrStateGone
	}
	return b, err
}

// Commit adds the next ledger and returns its state as it is kept from now on:
// the same entries, with no node in memory. The first ledger of a chain may have
// any sequence. The ledger can be read at once; it is durable when Sync returns
// or OnDurable says so. After an error, such as that of a full disk, nothing
// has been added, and Commit may be called again.
func (c *Chain) Commit(l Ledger) (shamap.Map, error) {
	c.commit.Lock()
	defer c.commit.Unlock()
	now := &info{header: l.Header, hash: l.Header.Hash(), txs: uint32(len(l.Transactions))}
	m, err := c.commitLedger(&l, now)
	if err != nil {
		return l.State, fmt.Errorf("ledger %d: %w", l.Header.Seq, err)
	}
	return m, nil
}

func (c *Chain) commitLedger(l *Ledger, now *info) (shamap.Map, error) {
	last, err := c.admit(l)
	if err != nil {
		return l.State, err
	}
	m, err := l.State.In(c.cache)
	if err != nil {
		return l.State, err
	}
	before, _ := m.Root()
	if m, err = c.refresh(m, last); err != nil {
		return l.State, err
	}
	after, _ := m.Root()
	refreshed := int(before.Bytes - after.Bytes)
	durable := c.Durable()
	saved, err := c.writeNodes(m, l.Header.Seq, durable)
	if err != nil {
		return l.State, err
	}
	now.root, _ = saved.Map.Root()
	if now.root.Place.Len == 0 {
		now.root.Oldest = c.state.end() // an empty state needs nothing
	}
	now.stateEnd = c.state.end() + uint64(len(c.nodes))
	places, err := c.writeLedger(l, now, durable)
	if err != nil {
		return l.State, err
	}
	// Only now is the space taken: until here, another try overwrites it.
	c.state.advance(len(c.nodes))
	c.history.advance(len(c.ledgers))
	saved.Keep()
	c.wrote = max(len(c.nodes)-refreshed, 0)
	c.index.add(now, l.Transactions, places, c.history.end(), int64(len(c.nodes)+len(c.ledgers)))
	c.first.CompareAndSwap(0, l.Header.Seq)
	c.mu.Lock()
	c.last = now
	c.recent[l.Header.Seq%uint32(len(c.recent))] = now
	c.work.Signal()
	c.mu.Unlock()
	const spare = 1 << 20
	if cap(c.nodes) > spare+4*len(c.nodes) {
		c.nodes = nil
	}
	if cap(c.ledgers) > spare+4*len(c.ledgers) {
		c.ledgers = nil
	}
	return saved.Map, nil
}

// admit checks a ledger against the last one and waits while too much is not
// yet in the index.
func (c *Chain) admit(l *Ledger) (*info, error) {
	for {
		c.mu.Lock()
		last, err, kept := c.last, c.err, c.kept
		if err == nil && c.closing {
			err = ErrClosed
		}
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if last != nil && (l.Header.Seq != last.header.Seq+1 || l.Header.ParentHash != last.hash) {
			return nil, fmt.Errorf("it does not follow ledger %d %X", last.header.Seq, last.hash)
		}
		if l.Header.Seq == 0 {
			return nil, errors.New("0 is no sequence")
		}
		if h := l.State.Hash(); h != l.Header.AccountHash {
			return nil, fmt.Errorf("its state has hash %X, its header says %X", h, l.Header.AccountHash)
		}
		if c.index.backlog() < 4*c.cfg.CheckpointBytes {
			return last, nil
		}
		// It may be the disk that was full: let the keeper try again.
		c.wakeKeeper()
		select {
		case <-kept:
		case <-c.failed:
			continue
		}
		c.mu.Lock()
		keepErr := c.keepErr
		c.mu.Unlock()
		if keepErr != nil {
			return nil, keepErr
		}
	}
}

// writeNodes writes the frame of new nodes behind the end of the stream.
func (c *Chain) writeNodes(m shamap.Map, seq, durable uint32) (shamap.Saved, error) {
	off, salt, err := c.state.next()
	if err != nil {
		return shamap.Saved{}, c.checkSync(err)
	}
	b := append(c.nodes[:0], make([]byte, frameHeader)...)
	saved := m.Save(func(rec []byte) shamap.Place {
		p := shamap.Place{Off: off + uint64(len(b)), Len: uint32(len(rec))}
		b = append(b, rec...)
		return p
	})
	c.nodes = b
	if len(b)-frameHeader > maxFrame {
		return saved, fmt.Errorf("%d bytes of changed state are too many", len(b))
	}
	putFrame(b, salt, off, seq, durable)
	return saved, c.state.write(b)
}

// writeLedger writes the frame of the ledger behind the end of the stream, and
// returns where its transactions are.
func (c *Chain) writeLedger(l *Ledger, now *info, durable uint32) ([]place, error) {
	off, salt, err := c.history.next()
	if err != nil {
		return nil, c.checkSync(err)
	}
	places := make([]place, len(l.Transactions))
	b := append(c.ledgers[:0], make([]byte, frameHeader+ledgerRecord)...)
	for i := range l.Transactions {
		at := len(b)
		if b, err = appendTransaction(b, &l.Transactions[i], now.header.Seq, i); err != nil {
			return nil, err
		}
		if len(b)-frameHeader > maxFrame {
			return nil, fmt.Errorf("%d bytes of transactions are too many", len(b))
		}
		places[i] = place{off + uint64(at), uint32(len(b) - at)}
	}
	c.ledgers = b
	now.at = place{off + frameHeader, ledgerRecord}
	now.txBytes = uint32(len(b) - frameHeader - ledgerRecord)
	appendLedger(b[frameHeader:frameHeader], now)
	putFrame(b, salt, off, l.Header.Seq, durable)
	return places, c.history.write(b)
}

// checkSync makes the chain fail when an error is that of a sync.
func (c *Chain) checkSync(err error) error {
	if !errors.Is(err, errSync) {
		return err
	}
	c.fail(err)
	return c.Err()
}

// refresh has nodes at the beginning of the stream written anew, so that it can
// be dropped. It begins when the part of the stream that only the last state
// still needs is longer than that state, and writes half as much as the ledgers
// themselves change: a state is copied once while three times its size becomes
// garbage, and no ledger takes much longer for it.
func (c *Chain) refresh(m shamap.Map, last *info) (shamap.Map, error) {
	if last == nil {
		return m, nil
	}
	if c.cycle != 0 && last.root.Oldest >= c.cycle {
		c.cycle = 0
	}
	if c.cycle == 0 {
		c.mu.Lock()
		oldest := c.recent[(last.header.Seq+1)%uint32(len(c.recent))] // the next to go
		c.mu.Unlock()
		if oldest == nil || oldest.stateEnd < last.root.Oldest {
			return m, nil
		}
		if oldest.stateEnd-last.root.Oldest <= last.root.Bytes+2*uint64(c.cfg.SegmentBytes) {
			return m, nil
		}
		c.cycle = oldest.stateEnd
	}
	const least = 16 << 10 // so that a cycle ends also where little changes
	return m.Refresh(c.cycle, max(least, c.wrote/2))
}

// Err returns why the chain has failed, nil while it works.
func (c *Chain) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Failed is closed when the chain has failed; Err then tells why.
func (c *Chain) Failed() <-chan struct{} { return c.failed }

func (c *Chain) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = fmt.Errorf("%w: %w", ErrFailed, err)
	c.cfg.Log.Error("the chain of ledgers has failed; the ledger must stop", "folder", c.cfg.Dir, "error", err)
	close(c.failed)
	c.work.Broadcast()
}

// Durable returns the last durable ledger, 0 when there is none.
func (c *Chain) Durable() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.durable
}

// Sync waits until a ledger that was committed is durable.
func (c *Chain) Sync(ctx context.Context, seq uint32) error {
	for {
		c.mu.Lock()
		var err error
		switch {
		case c.durable >= seq:
			c.mu.Unlock()
			return nil
		case c.err != nil:
			err = c.err
		case c.last == nil || seq > c.last.header.Seq:
			err = fmt.Errorf("ledger %d: %w", seq, ErrNotFound)
		case c.closing && c.durable >= c.last.header.Seq:
			err = ErrClosed
		}
		if err != nil {
			c.mu.Unlock()
			return err
		}
		if c.advanced == nil {
			c.advanced = make(chan struct{})
		}
		advanced := c.advanced
		c.mu.Unlock()
		select {
		case <-advanced:
		case <-c.failed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close makes everything committed durable and frees the folder. It returns
// the error of a chain that has failed.
func (c *Chain) Close() error {
	c.commit.Lock()
	defer c.commit.Unlock()
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return c.Err()
	}
	c.closing = true
	c.work.Broadcast()
	c.mu.Unlock()
	c.stopped.Wait()
	if err := c.closeFiles(); err != nil {
		return fmt.Errorf("closing the ledgers: %w", err)
	}
	return c.Err()
}

func (c *Chain) closeFiles() error {
	c.state.close()
	c.history.close()
	c.index.closeRuns()
	return c.lock.Close()
}
