package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

// staging is an open staging of a State. When the state's process dies, all it
// does fails with ErrGone; what it has fetched is on disk for the next.
type staging struct {
	l    *link
	id   uint32
	once sync.Once
	err  error
}

// Stage implements statefs.State.
func (s *State) Stage(ctx context.Context) (statefs.Staging, error) {
	st := &staging{}
	err := s.do(ctx, s.cfg.Patience, func(l *link) error {
		body, err := l.call(ctx, opStage)
		if err != nil {
			return err
		}
		st.l = l
		r := wire.NewReader(body)
		st.id = r.U32()
		return r.Close()
	})
	if err != nil {
		return nil, err
	}
	return st, nil
}

// call makes a call about the staging; head follows the staging's number.
func (st *staging) call(ctx context.Context, o op, head []byte, data ...[]byte) ([]byte, error) {
	parts := append([][]byte{append(wire.AppendU32(make([]byte, 0, 4+len(head)), st.id), head...)}, data...)
	body, err := st.l.call(ctx, o, parts...)
	if errors.Is(err, errLost) {
		err = ErrGone
	}
	return body, err
}

// ask makes a call whose answer is yes or no, with something behind a yes. A
// state that does not answer has nothing.
func (st *staging) ask(o op, head []byte) (rest []byte, yes bool) {
	body, err := st.call(context.Background(), o, head)
	if err != nil || len(body) == 0 {
		return nil, false
	}
	return body[1:], body[0] == 1
}

// HasTree implements statefs.Staging.
func (st *staging) HasTree(path string, hash digest.Hash) bool {
	if len(path) > maxPath {
		return false
	}
	_, yes := st.ask(opHasTree, wire.AppendString(hash[:], path))
	return yes
}

// Node implements statefs.Staging.
func (st *staging) Node(hash digest.Hash) ([]byte, bool) { return st.ask(opNode, hash[:]) }

// bounded refuses what no reader would take.
func bounded(data []byte) error {
	if len(data) > statefs.MaxObject {
		return fmt.Errorf("object of %d bytes, at most %d are allowed", len(data), statefs.MaxObject)
	}
	return nil
}

// dataHead is what stands before data: what it is about, and its length.
func dataHead(head, data []byte) []byte { return wire.AppendU32(head, uint32(len(data))) }

// PutNode implements statefs.Staging.
func (st *staging) PutNode(kind statefs.RefKind, hash digest.Hash, data []byte) error {
	if err := bounded(data); err != nil {
		return err
	}
	_, err := st.call(context.Background(), opPutNode, dataHead(append([]byte{uint8(kind)}, hash[:]...), data), data)
	return err
}

// HasFile implements statefs.Staging.
func (st *staging) HasFile(hash digest.Hash) bool {
	_, yes := st.ask(opHasFile, hash[:])
	return yes
}

// PutFile implements statefs.Staging.
func (st *staging) PutFile(hash digest.Hash, data []byte) error {
	if err := bounded(data); err != nil {
		return err
	}
	_, err := st.call(context.Background(), opPutFile, dataHead(hash[:], data), data)
	return err
}

// OpenFile implements statefs.Staging.
func (st *staging) OpenFile(ctx context.Context, path string, size uint64, hash digest.Hash, list []byte) (statefs.StagedFile, error) {
	if err := bounded(list); err != nil {
		return nil, err
	}
	if size > statefs.MaxFileSize {
		return nil, statefs.ErrFileTooLarge
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("path of %d bytes, at most %d are allowed", len(path), maxPath)
	}
	head := append(wire.AppendU64(nil, size), hash[:]...)
	body, err := st.call(ctx, opOpenFile, dataHead(wire.AppendString(head, path), list), list)
	if err != nil {
		return nil, err
	}
	r := wire.NewReader(body)
	f := &stagedFile{l: st.l, id: r.U32()}
	f.group, _ = statefs.Groups(size)
	f.missing = make([]uint32, r.Count(maxMissing, 4))
	for i := range f.missing {
		f.missing[i] = r.U32()
	}
	return f, r.Close()
}

// Switch implements statefs.Staging.
func (st *staging) Switch(ctx context.Context, v statefs.Version, patch []byte) error {
	if len(patch) > statefs.MaxPatch {
		return fmt.Errorf("patch.cfg of %d bytes, at most %d are allowed", len(patch), statefs.MaxPatch)
	}
	b := appendVersion(nil, v)
	b = wire.AppendBool(b, patch != nil)
	if patch != nil {
		b = wire.AppendBytes(b, patch)
	}
	_, err := st.call(ctx, opSwitch, b)
	return err
}

// Close implements statefs.Staging.
func (st *staging) Close() error {
	st.once.Do(func() { st.err = release(st.l, st.id) })
	return st.err
}

// stagedFile is a file on its way.
type stagedFile struct {
	l       *link
	id      uint32
	group   uint64
	missing []uint32
	once    sync.Once
	err     error
}

// Missing implements statefs.StagedFile.
func (f *stagedFile) Missing() []uint32 { return f.missing }

// Put implements statefs.StagedFile.
func (f *stagedFile) Put(index uint32, data []byte) error {
	if err := bounded(data); err != nil {
		return err
	}
	head := dataHead(wire.AppendU32(wire.AppendU32(nil, f.id), index), data)
	_, err := f.l.call(context.Background(), opPut, head, data)
	if errors.Is(err, errLost) {
		err = ErrGone
	}
	return err
}

// PutRun adds whole groups in a row, of which the first is given; the last may be
// the file's short last one. A run goes over in pieces of at most an object's
// size.
func (f *stagedFile) PutRun(first uint32, data []byte) error {
	whole := int(statefs.MaxObject / f.group * f.group)
	for {
		n := min(len(data), whole)
		head := dataHead(wire.AppendU32(wire.AppendU32(nil, f.id), first), data[:n])
		_, err := f.l.call(context.Background(), opPutRun, head, data[:n])
		if errors.Is(err, errLost) {
			err = ErrGone
		}
		if data = data[n:]; err != nil || len(data) == 0 {
			return err
		}
		first += uint32(n / int(f.group))
	}
}

// Close implements statefs.StagedFile.
func (f *stagedFile) Close() error {
	f.once.Do(func() {
		_, f.err = f.l.call(context.Background(), opRelease, wire.AppendU32(nil, f.id))
		if errors.Is(f.err, errLost) {
			f.err = ErrGone
		}
	})
	return f.err
}
