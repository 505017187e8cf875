package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

const (
	// maxServed is how many requests of one node are worked on at a time; more
	// wait unread. The node asks for fewer.
	maxServed = 256
	// maxHandles bounds what a node has open at a time.
	maxHandles = 4096
	// helloTime is how long whoever connects may take to say hello.
	helloTime = 5 * time.Second
	// handover is how long a node that connects waits for the one before it to
	// be gone.
	handover = 5 * time.Second
)

// Opener opens the state when the first node says hello.
type Opener func(ctx context.Context, h Hello) (statefs.State, error)

// Opened is the Opener of a state that is open already.
func Opened(s statefs.State) Opener {
	return func(context.Context, Hello) (statefs.State, error) { return s, nil }
}

// Options say how a state is served.
type Options struct {
	// Open opens the state at the first hello.
	Open Opener
	// Root is the folder as this side sees it; paths below it travel relative to
	// it, since the node may see the folder elsewhere. Empty: as they are.
	Root string
	// Allow says which users may connect, by the uid of the process at the other
	// end. Nil allows this process's own user and root.
	Allow func(uid uint32) bool
	// Log takes what the operator should know.
	Log *slog.Logger
}

// server keeps one state for the nodes that come one after the other.
type server struct {
	opt   Options
	log   *slog.Logger
	state statefs.State // nil before the first hello
	keep  bool          // the state stays open when its node closes it

	// ended is a run that had ended when its node went away without a decision:
	// the next node's hello decides.
	ended        statefs.Run
	endedVersion statefs.Version
}

func newServer(o Options) *server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &server{opt: o, log: o.Log}
}

// Serve answers the nodes that connect to l, one at a time, until ctx ends. The
// state stays open from the first node on; when a node goes away, its open run is
// rolled back and its views and staging are closed. A run that had ended is kept
// until the next node says which version is confirmed. A node's Close ends its
// connection, not the state. At the end the state is closed, and so is l.
func Serve(ctx context.Context, l net.Listener, o Options) (err error) {
	s := newServer(o)
	s.keep = true
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	turn := make(chan struct{}, 1)
	turn <- struct{}{}
	var all sync.WaitGroup
	defer func() {
		cancel()
		all.Wait()
		err = errors.Join(err, s.close())
	}()
	waiting := make(chan struct{}, 4)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept a node: %w", err)
		}
		select {
		case waiting <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		all.Go(func() {
			defer conn.Close()
			f, h, err := s.greet(conn)
			if err != nil {
				<-waiting
				s.log.Warn("a connection to the state was refused", "err", err)
				return
			}
			wait := time.NewTimer(handover)
			defer wait.Stop()
			select {
			case <-turn:
			case <-wait.C:
				<-waiting
				s.log.Warn("a second node wanted to use the state and was refused")
				refuse(f, h.id, ErrTaken)
				return
			case <-ctx.Done():
				<-waiting
				return
			}
			<-waiting
			defer func() { turn <- struct{}{} }()
			if err := s.session(ctx, f, h); err != nil && ctx.Err() == nil {
				s.log.Warn("the connection to the node has failed", "err", err)
			}
		})
	}
}

// ServeConn answers the one node at the other end of conn, and closes the state
// and conn when it is done: the node has closed the state, its connection has
// ended, or ctx has. That the state cannot be opened is told to the node and no
// error here.
func ServeConn(ctx context.Context, conn net.Conn, o Options) error {
	s := newServer(o)
	defer conn.Close()
	f, h, err := s.greet(conn)
	if err != nil {
		return err
	}
	err = s.session(ctx, f, h)
	var told *openError
	if errors.As(err, &told) {
		err = nil
	}
	// An open run is not undone here: the next start does that, and it may know
	// that a run that has ended was confirmed.
	return errors.Join(err, s.closeState())
}

// openError is why a state could not be opened, which its node has been told.
type openError struct{ error }

func (e *openError) Unwrap() error { return e.error }

type greeting struct {
	Hello
	id uint32
}

// greet reads a node's hello.
func (s *server) greet(conn net.Conn) (*framer, greeting, error) {
	if err := s.checkPeer(conn); err != nil {
		return nil, greeting{}, err
	}
	f := newFramer(conn)
	if err := conn.SetReadDeadline(time.Now().Add(helloTime)); err != nil {
		return nil, greeting{}, err
	}
	fr, err := f.read(nil)
	if err != nil {
		return nil, greeting{}, fmt.Errorf("hello: %w", err)
	}
	if op(fr.kind) != opHello {
		return nil, greeting{}, fmt.Errorf("the first request is %d, not a hello", fr.kind)
	}
	h, err := decodeHello(fr.body)
	if err != nil {
		refuse(f, fr.id, err)
		return nil, greeting{}, err
	}
	return f, greeting{h, fr.id}, conn.SetReadDeadline(time.Time{})
}

func refuse(f *framer, id uint32, err error) {
	// Whoever is refused and does not listen does not matter.
	_ = f.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = f.write(id, flagError, nil, appendError(nil, err))
}

func (s *server) checkPeer(conn net.Conn) error {
	uid, err := peerUID(conn)
	if err != nil {
		return err
	}
	allow := s.opt.Allow
	if allow == nil {
		allow = ownUsers
	}
	if !allow(uid) {
		f := newFramer(conn)
		err := fmt.Errorf("%w: user %d", ErrRefused, uid)
		refuse(f, 0, err)
		return err
	}
	return nil
}

// open brings the state to where the node's hello expects it.
func (s *server) open(ctx context.Context, h Hello) error {
	if s.state == nil {
		state, err := s.opt.Open(ctx, h)
		if err != nil {
			return err
		}
		s.state = state
		return nil
	}
	run := s.ended
	if run == nil {
		return nil
	}
	s.ended = nil
	if c := h.Confirmed; c != nil && *c == s.endedVersion {
		err := run.Commit(ctx)
		if err == nil {
			s.log.Warn("the run that the node before had not decided on is confirmed", "version", c.String())
			return nil
		}
		s.log.Error("the run that the node before had not decided on cannot be confirmed and is undone", "err", err)
	}
	if err := run.Rollback(ctx); err != nil && !errors.Is(err, statefs.ErrDamaged) {
		return fmt.Errorf("undo the run of the node before: %w", err)
	}
	return nil
}

// closeState closes the state as it is.
func (s *server) closeState() error {
	if s.state == nil {
		return nil
	}
	state := s.state
	s.state = nil
	return state.Close()
}

// close closes the state for good.
func (s *server) close() error {
	if s.ended != nil {
		// Not rolled back: the next start may know that it was confirmed.
		s.ended = nil
	}
	return s.closeState()
}

// session is one node's connection.
type session struct {
	s     *server
	f     *framer
	log   *slog.Logger
	state statefs.State

	slots  chan struct{}
	served sync.WaitGroup

	mu      sync.Mutex
	cancels map[uint32]context.CancelFunc
	handles map[uint32]any // statefs.View, *stage, *file
	next    uint32
	run     statefs.Run
	runID   uint32
	isEnded bool
	endedAs statefs.Version
	closed  bool // by the node's request

	// told is what the node knows; guarded by the framer's order of writes.
	told     status
	toldOnce bool
}

func (s *server) session(ctx context.Context, f *framer, h greeting) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.open(ctx, h.Hello); err != nil {
		refuse(f, h.id, err)
		return &openError{err}
	}
	ss := &session{
		s: s, f: f, log: s.log, state: s.state,
		slots:   make(chan struct{}, maxServed),
		cancels: make(map[uint32]context.CancelFunc), handles: make(map[uint32]any),
	}
	stop := context.AfterFunc(ctx, func() { f.conn.Close() })
	defer stop()
	err := ss.reply(h.id, nil, wire.AppendU32(nil, protocol))
	if err == nil {
		err = ss.read(ctx)
	}
	cancel() // before what follows waits for what is at work
	ss.served.Wait()
	ss.leave()
	if ss.closed || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// read takes requests until the connection ends.
func (ss *session) read(ctx context.Context) error {
	for {
		fr, err := ss.f.read(place)
		if err != nil {
			return err
		}
		switch op(fr.kind) {
		case opPing:
			if err := ss.reply(fr.id, nil); err != nil {
				return err
			}
			continue
		case opCancel:
			ss.mu.Lock()
			if c := ss.cancels[fr.id]; c != nil {
				c()
			}
			ss.mu.Unlock()
			continue
		case opClose:
			ss.mu.Lock()
			for _, c := range ss.cancels {
				c()
			}
			ss.mu.Unlock()
			ss.served.Wait()
			ss.leave()
			ss.closed = true
			var err error
			if !ss.s.keep {
				err = ss.s.closeState()
			}
			if e := ss.answer(fr.id, err); e != nil {
				return e
			}
			return nil
		}
		select {
		case ss.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		c, cancel := context.WithCancel(ctx)
		ss.mu.Lock()
		_, twice := ss.cancels[fr.id]
		ss.cancels[fr.id] = cancel
		ss.mu.Unlock()
		if twice {
			cancel()
			<-ss.slots
			return fmt.Errorf("request %d is at work already", fr.id)
		}
		ss.served.Go(func() {
			defer func() { <-ss.slots }()
			body, err := ss.do(c, op(fr.kind), wire.NewReader(fr.body))
			if carriesData(op(fr.kind)) {
				giveBack(fr.body) // the state has written the data down
			}
			ss.mu.Lock()
			delete(ss.cancels, fr.id)
			ss.mu.Unlock()
			cancel()
			if err != nil {
				err = ss.answer(fr.id, err)
			} else {
				err = ss.reply(fr.id, nil, body...)
				if op(fr.kind) == opObject {
					giveBack(body[0])
				}
			}
			if err != nil {
				ss.f.conn.Close() // the reader sees it
			}
		})
	}
}

// leave closes what the node has left open.
func (ss *session) leave() {
	ss.mu.Lock()
	run, handles := ss.run, ss.handles
	ss.run, ss.handles = nil, make(map[uint32]any)
	ss.mu.Unlock()
	for _, kind := range []func(any) (io.Closer, bool){asFile, asStage, asView} {
		for id, h := range handles {
			if c, ok := kind(h); ok {
				delete(handles, id)
				if err := c.Close(); err != nil {
					ss.log.Warn("what the node had open could not be closed", "err", err)
				}
			}
		}
	}
	if run == nil {
		return
	}
	if ss.isEnded {
		ss.s.ended, ss.s.endedVersion = run, ss.endedAs
		return
	}
	if err := run.Rollback(context.Background()); err != nil {
		ss.log.Error("the run that the node left open could not be undone", "err", err)
	}
}

func asFile(h any) (io.Closer, bool)  { c, ok := h.(*file); return c, ok }
func asStage(h any) (io.Closer, bool) { c, ok := h.(*stage); return c, ok }
func asView(h any) (io.Closer, bool)  { c, ok := h.(statefs.View); return c, ok }

// answer sends an error, or an empty reply when there is none.
func (ss *session) answer(id uint32, err error) error {
	if err == nil {
		return ss.reply(id, nil)
	}
	return ss.reply(id, err)
}

// reply sends a reply with the status in front if that has changed.
func (ss *session) reply(id uint32, failed error, body ...[]byte) error {
	var kind uint8
	if failed != nil {
		kind, body = flagError, [][]byte{appendError(nil, failed)}
	}
	return ss.f.write(id, kind, func(b []byte) (uint8, []byte) {
		if ss.closed {
			return 0, b
		}
		now := status{ss.state.Agreed(), ss.state.Damaged(), nil}
		if ss.toldOnce && now.agreed == ss.told.agreed && now.damaged == ss.told.damaged {
			return 0, b
		}
		withPatch := !ss.toldOnce || now.agreed.Patch != ss.told.agreed.Patch
		if withPatch {
			now.patch = ss.state.Patch()
		}
		ss.told, ss.toldOnce = now, true
		return flagStatus, now.append(b, withPatch)
	}, body...)
}

// stage is an open staging.
type stage struct {
	statefs.Staging
}

// file is a file on its way, in groups of the given size.
type file struct {
	statefs.StagedFile
	group int
}

// putRun adds groups in a row, in one piece if the state can.
func (f *file) putRun(first uint32, data []byte) error {
	if w, ok := f.StagedFile.(interface {
		PutRun(first uint32, data []byte) error
	}); ok {
		return w.PutRun(first, data)
	}
	for {
		n := min(len(data), f.group)
		if err := f.Put(first, data[:n]); err != nil {
			return err
		}
		if data = data[n:]; len(data) == 0 {
			return nil
		}
		first++
	}
}

var errHandle = errors.New("the state knows nothing of what was asked about")

// keep gives something that is open a number.
func (ss *session) keep(h any) (uint32, error) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if len(ss.handles) >= maxHandles {
		return 0, fmt.Errorf("more than %d views and files are open", maxHandles)
	}
	ss.next++
	for ss.handles[ss.next] != nil || ss.next == 0 {
		ss.next++
	}
	ss.handles[ss.next] = h
	return ss.next, nil
}

func handleOf[T any](ss *session, r *wire.Reader) (v T, err error) {
	id := r.U32()
	ss.mu.Lock()
	h := ss.handles[id]
	ss.mu.Unlock()
	if r.Err() != nil {
		return v, r.Err()
	}
	v, ok := h.(T)
	if !ok {
		return v, errHandle
	}
	return v, nil
}

// path is how a folder is named to the node.
func (ss *session) path(dir string) []byte {
	if root := ss.s.opt.Root; root != "" {
		if rel, err := filepath.Rel(root, dir); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			dir = rel
		}
	}
	return wire.AppendString(nil, dir)
}

// do carries out one request and returns the body of the reply.
func (ss *session) do(ctx context.Context, o op, r *wire.Reader) ([][]byte, error) {
	switch o {
	case opBegin, opEnd, opCommit, opRollback:
		return ss.doRun(ctx, o, r)
	case opView:
		if err := r.Close(); err != nil {
			return nil, err
		}
		v, err := ss.state.View(ctx)
		if err != nil {
			return nil, err
		}
		id, err := ss.keep(v)
		if err != nil {
			v.Close()
			return nil, err
		}
		b := appendVersion(wire.AppendU32(nil, id), v.Version())
		return [][]byte{append(b, ss.path(v.Dir())...)}, nil
	case opObject:
		ref := readRef(r)
		if err := r.Close(); err != nil {
			return nil, err
		}
		data, err := ss.object(ctx, ref)
		return [][]byte{data}, err
	case opSetPatch:
		content := r.View(statefs.MaxPatch + 1)
		if err := r.Close(); err != nil {
			return nil, err
		}
		h, err := ss.state.SetPatch(ctx, content)
		return [][]byte{h[:]}, err
	case opRelease:
		id := r.U32()
		if err := r.Close(); err != nil {
			return nil, err
		}
		ss.mu.Lock()
		h := ss.handles[id]
		delete(ss.handles, id)
		ss.mu.Unlock()
		if c, ok := h.(io.Closer); ok {
			return nil, c.Close()
		}
		return nil, errHandle
	case opStage:
		if err := r.Close(); err != nil {
			return nil, err
		}
		st, err := ss.state.Stage(ctx)
		if err != nil {
			return nil, err
		}
		id, err := ss.keep(&stage{st})
		if err != nil {
			st.Close()
			return nil, err
		}
		return [][]byte{wire.AppendU32(nil, id)}, nil
	case opPutRun:
		f, err := handleOf[*file](ss, r)
		if err != nil {
			return nil, err
		}
		first, data := r.U32(), r.View(statefs.MaxObject)
		if err := r.Close(); err != nil {
			return nil, err
		}
		return nil, f.putRun(first, data)
	case opPut:
		f, err := handleOf[*file](ss, r)
		if err != nil {
			return nil, err
		}
		index, data := r.U32(), r.View(statefs.MaxObject)
		if err := r.Close(); err != nil {
			return nil, err
		}
		return nil, f.Put(index, data)
	case opHasTree, opNode, opPutNode, opHasFile, opPutFile, opOpenFile, opSwitch:
		return ss.doStage(ctx, o, r)
	}
	return nil, fmt.Errorf("unknown request %d: %w", o, ErrVersion)
}

// object returns a piece of the state, in a buffer to be given back if it can.
func (ss *session) object(ctx context.Context, ref statefs.Ref) ([]byte, error) {
	a, ok := ss.state.(interface {
		AppendObject(ctx context.Context, ref statefs.Ref, b []byte) ([]byte, error)
	})
	if !ok {
		return ss.state.Object(ctx, ref)
	}
	b := *buffers.Get().(*[]byte)
	data, err := a.AppendObject(ctx, ref, b[:0])
	if err != nil || cap(data) != pooledTo {
		giveBack(b)
	}
	return data, err
}

func (ss *session) doRun(ctx context.Context, o op, r *wire.Reader) ([][]byte, error) {
	if o == opBegin {
		seq := r.U64()
		if err := r.Close(); err != nil {
			return nil, err
		}
		run, err := ss.state.Begin(ctx, seq)
		if err != nil {
			return nil, err
		}
		ss.mu.Lock()
		ss.runID++
		ss.run, ss.isEnded, ss.endedAs = run, false, statefs.Version{Seq: seq}
		id := ss.runID
		ss.mu.Unlock()
		return [][]byte{wire.AppendU32(nil, id), ss.path(run.Dir())}, nil
	}
	id := r.U32()
	if err := r.Close(); err != nil {
		return nil, err
	}
	ss.mu.Lock()
	run := ss.run
	known := id == ss.runID
	ss.mu.Unlock()
	if run == nil || !known {
		return nil, statefs.ErrFinished
	}
	var body [][]byte
	var err error
	switch o {
	case opEnd:
		var root, patch digest.Hash
		if root, patch, err = run.End(ctx); err == nil {
			ss.mu.Lock()
			ss.isEnded = true
			ss.endedAs.Root, ss.endedAs.Patch = root, patch
			ss.mu.Unlock()
			body = [][]byte{root[:], patch[:]}
		}
		return body, err
	case opCommit:
		err = run.Commit(ctx)
	case opRollback:
		err = run.Rollback(ctx)
	}
	if err == nil || errors.Is(err, statefs.ErrFinished) || o == opRollback && errors.Is(err, statefs.ErrDamaged) {
		ss.mu.Lock()
		if ss.run == run {
			ss.run = nil
		}
		ss.mu.Unlock()
	}
	return nil, err
}

func (ss *session) doStage(ctx context.Context, o op, r *wire.Reader) ([][]byte, error) {
	st, err := handleOf[*stage](ss, r)
	if err != nil {
		return nil, err
	}
	yes := func(v bool) [][]byte { return [][]byte{wire.AppendBool(nil, v)} }
	switch o {
	case opHasTree:
		hash, path := readHash(r), r.String(maxPath)
		if err := r.Close(); err != nil {
			return nil, err
		}
		return yes(st.HasTree(path, hash)), nil
	case opNode:
		hash := readHash(r)
		if err := r.Close(); err != nil {
			return nil, err
		}
		data, ok := st.Node(hash)
		return append(yes(ok), data), nil
	case opPutNode:
		// The state may keep what it is given, so it gets the frame's own bytes,
		// which nobody else has.
		kind, hash, data := statefs.RefKind(r.U8()), readHash(r), r.View(statefs.MaxObject)
		if err := r.Close(); err != nil {
			return nil, err
		}
		return nil, st.PutNode(kind, hash, data)
	case opHasFile:
		hash := readHash(r)
		if err := r.Close(); err != nil {
			return nil, err
		}
		return yes(st.HasFile(hash)), nil
	case opPutFile:
		hash, data := readHash(r), r.View(statefs.MaxObject)
		if err := r.Close(); err != nil {
			return nil, err
		}
		return nil, st.PutFile(hash, data)
	case opOpenFile:
		size, hash := r.U64(), readHash(r)
		path, list := r.String(maxPath), r.View(statefs.MaxObject)
		if err := r.Close(); err != nil {
			return nil, err
		}
		f, err := st.OpenFile(ctx, path, size, hash, list)
		if err != nil {
			return nil, err
		}
		group, _ := statefs.Groups(size)
		id, err := ss.keep(&file{f, int(group)})
		if err != nil {
			f.Close()
			return nil, err
		}
		missing := f.Missing()
		b := wire.AppendU32(make([]byte, 0, 8+4*len(missing)), id)
		b = wire.AppendU32(b, uint32(len(missing)))
		for _, i := range missing {
			b = wire.AppendU32(b, i)
		}
		return [][]byte{b}, nil
	}
	v := readVersion(r)
	var patch []byte
	if r.Bool() {
		if patch = r.Bytes(statefs.MaxPatch); patch == nil {
			patch = []byte{}
		}
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	return nil, st.Switch(ctx, v, patch)
}
