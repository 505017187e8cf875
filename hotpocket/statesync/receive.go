package statesync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"evernode/hotpocket/statefs"
)

// store takes answers in: it checks the pieces, keeps them, and says what they
// show to be missing. It belongs to one target of a sync; several goroutines use
// it at a time.
type store struct {
	staging  statefs.Staging
	local    Source // this node's own state, nil when that cannot be asked
	frontier *frontier
	coming   *hashSet
	files    *fileSet

	mu    sync.Mutex
	patch []byte
}

func (s *store) setPatch(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patch = slices.Clone(b)
}

func (s *store) getPatch() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.patch
}

// stored is what became of the answers of one peer.
type stored struct {
	cursors []cursor
	again   []*item // not answered, or not by what this node has
	refused []*item // the peer does not have them
	nodes   int     // nodes that are here now
	pieces  uint64
	bytes   uint64 // of the state that are here now
	deltas  int    // answers that did not follow from what this node has
	blame   error  // the peer answered wrongly
	fatal   error  // nothing a peer can be blamed for
}

// base returns what this node has in the place of a piece; nil for nothing.
func (s *store) base(ctx context.Context, it *item) []byte {
	if it.base.IsZero() || it.whole {
		return nil
	}
	switch it.Kind {
	case statefs.RefDir, statefs.RefPage:
		data, _ := s.staging.Node(it.base)
		return data
	case statefs.RefData:
		if s.local == nil || it.expect < leastDelta || it.file != nil && !it.file.worthwhile() {
			return nil
		}
		data, _ := s.local.Object(ctx, statefs.Ref{Kind: it.Kind, Path: it.Path, Hash: it.base, Index: it.Index})
		return data
	}
	return nil
}

// question returns what a peer is asked. Nothing is offered to compare with when
// whole is wanted.
func (s *store) question(ctx context.Context, it *item, whole bool) question {
	q := question{Ref: it.Ref}
	if whole {
		return q
	}
	data := s.base(ctx, it)
	switch {
	case data == nil:
	case it.Kind == statefs.RefData:
		q.have = blockTags(data)
	default:
		q.have = nodeTags(it.Kind, data)
	}
	if len(q.have) > maxHave {
		q.have = nil
	}
	return q
}

// take takes the answers to items, which lie in reply.
func (s *store) take(ctx context.Context, items []*item, questions []question, answers []answer, reply []byte) (r stored) {
	for i := 0; i < len(items); i++ {
		it, a := items[i], answers[i]
		switch {
		case it.stored.Load():
			continue // another peer was faster
		case r.blame != nil || a.status == statusLater:
			r.again = append(r.again, it)
			continue
		case a.status == statusMissing:
			r.refused = append(r.refused, it)
			continue
		}
		data := a.data
		if a.status == statusDelta {
			var err error
			if data, err = s.undo(ctx, it, &questions[i], a.data); err == nil {
				err = s.receive(ctx, it, data, &r)
			}
			if err == nil {
				continue
			}
			if !errors.Is(err, statefs.ErrMismatch) && !errors.Is(err, errDelta) {
				r.fatal = err
				return r
			}
			it.whole = true
			r.deltas++
			r.again = append(r.again, it)
			continue
		}
		if len(questions[i].have) > 0 && it.file != nil {
			it.file.tried.Add(int64(len(data)))
		}
		n := run(items[i:], answers[i:])
		var err error
		if n > 1 {
			err = s.receiveRun(items[i:i+n], answers[i:i+n], reply, &r)
		} else {
			err = s.receive(ctx, it, data, &r)
		}
		switch {
		case errors.Is(err, statefs.ErrMismatch):
			r.blame = fmt.Errorf("%s of %q: %w", it.Hash.Short(), it.Path, err)
			r.again = append(r.again, items[i:i+n]...)
		case err != nil:
			r.fatal = err
			return r
		}
		i += n - 1
	}
	return r
}

// undo puts a piece together of which the peer has told the changes.
func (s *store) undo(ctx context.Context, it *item, q *question, delta []byte) ([]byte, error) {
	if len(q.have) == 0 {
		return nil, errDelta
	}
	base := s.base(ctx, it)
	if it.Kind != statefs.RefData {
		return applyNodeDelta(it.Kind, base, delta)
	}
	if f := it.file; f != nil {
		f.tried.Add(int64(it.expect))
		f.saved.Add(int64(max(it.expect-len(delta), 0)))
	}
	return applyBlockDelta(it.expect, base, delta)
}

// run returns how many of the items, which have been answered, are groups in a
// row of one file that are put in one piece.
func run(items []*item, answers []answer) int {
	f := items[0].file
	if items[0].Kind != statefs.RefData || f == nil || !f.runs() {
		return 1
	}
	n := 1
	for n < len(items) && items[n].file == f && items[n].Kind == statefs.RefData && items[n].Index == items[n-1].Index+1 &&
		answers[n].status == statusFound && !items[n].stored.Load() && uint64(len(answers[n-1].data)) == f.group {
		n++
	}
	return n
}

// receiveRun keeps groups in a row. Their bytes lie in one reply, with little
// between them, and are moved together there.
func (s *store) receiveRun(items []*item, answers []answer, reply []byte, r *stored) error {
	start := answers[0].at
	end := start + len(answers[0].data)
	for _, a := range answers[1:] {
		end += copy(reply[end:], a.data)
	}
	if err := items[0].file.put(items[0].Index, reply[start:end]); err != nil && !errors.Is(err, errClosed) {
		return err
	}
	for i, it := range items {
		if _, err := s.count(it, len(answers[i].data), r); err != nil {
			return err
		}
	}
	return nil
}

// count notes that a piece is here, and reports whether it was not before: of
// two peers that both sent it the first counts.
func (s *store) count(it *item, bytes int, r *stored) (bool, error) {
	if !it.stored.CompareAndSwap(false, true) {
		return false, nil
	}
	r.pieces++
	if it.node() {
		r.nodes++
	}
	if it.Kind != statefs.RefData {
		return true, nil
	}
	r.bytes += uint64(bytes)
	if f := it.file; f != nil {
		if last, err := f.arrived(); err != nil || !last {
			return true, err
		}
		s.files.remove(f)
	}
	s.coming.remove(it.Hash)
	return true, nil
}

// receive checks and keeps one piece.
func (s *store) receive(ctx context.Context, it *item, data []byte, r *stored) error {
	switch it.Kind {
	case statefs.RefDir, statefs.RefPage:
		if err := s.staging.PutNode(it.Kind, it.Hash, data); err != nil {
			return err
		}
		c, err := s.frontier.node(it, data)
		if err != nil {
			return err
		}
		if first, _ := s.count(it, len(data), r); first {
			r.cursors = append(r.cursors, c)
		}
		return nil
	case statefs.RefPatch:
		if len(data) > statefs.MaxPatch || statefs.HashPatch(data) != it.Hash {
			return statefs.ErrMismatch
		}
		s.setPatch(data)
	case statefs.RefList:
		return s.list(ctx, it, data, r)
	case statefs.RefData:
		if f := it.file; f != nil {
			if len(data) != it.expect {
				return statefs.ErrMismatch
			}
			if err := f.put(it.Index, data); err != nil && !errors.Is(err, errClosed) {
				return err
			}
			break
		}
		if uint64(len(data)) != it.size {
			return statefs.ErrMismatch
		}
		if err := s.staging.PutFile(it.Hash, data); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown kind %d", it.Kind)
	}
	_, err := s.count(it, len(data), r)
	return err
}

// list begins with a file of several groups.
func (s *store) list(ctx context.Context, it *item, data []byte, r *stored) error {
	if !it.stored.CompareAndSwap(false, true) {
		return nil
	}
	staged, err := s.staging.OpenFile(ctx, it.Path, it.size, it.Hash, data)
	if err != nil {
		it.stored.Store(false)
		return err
	}
	r.nodes++
	r.pieces++
	missing := staged.Missing()
	group, _ := statefs.Groups(it.size)
	f := &file{path: it.Path, hash: it.Hash, size: it.size, group: group, staged: staged}
	if it.file != nil {
		f.base, f.baseSize = it.base, it.file.baseSize
	}
	here := it.size
	for _, i := range missing {
		here -= uint64(f.length(i))
	}
	r.bytes += here
	if len(missing) == 0 {
		s.coming.remove(it.Hash)
		return staged.Close()
	}
	f.left.Store(int64(len(missing)))
	r.cursors = append(r.cursors, cursor{file: f, groups: slices.Clone(missing), held: len(data)})
	return s.files.add(f)
}
