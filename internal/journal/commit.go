package journal

import (
	"fmt"
)

// commitLoop writes and syncs what gathers in pending until the log is closed
// and empty, or has failed.
func (l *Log) commitLoop() {
	defer close(l.stopped)
	for {
		l.mu.Lock()
		for len(l.pending) == 0 && !l.closing && l.err == nil {
			l.work.Wait()
		}
		if l.err != nil || len(l.pending) == 0 {
			l.mu.Unlock()
			return
		}
		batch, upTo := l.pending, l.next-1
		l.pending, l.size = nil, 0
		l.room.Broadcast()
		l.mu.Unlock()

		err := l.commit(batch)

		l.mu.Lock()
		if err != nil {
			l.fail(err)
		}
		if l.err != nil {
			l.mu.Unlock()
			return
		}
		l.durable = upTo
		if l.advanced != nil {
			close(l.advanced)
			l.advanced = nil
		}
		if buf := batch[len(batch)-1].buf; cap(buf) <= 1<<20 {
			l.spareBuf = buf
		}
		tell := l.onDurable
		l.mu.Unlock()
		if tell != nil {
			tell(upTo)
		}
	}
}

// commit writes a batch and syncs it. A segment is synced whole before the
// next one is begun: only the last segment can have a torn end.
func (l *Log) commit(batch []chunk) error {
	dirty := false
	for _, c := range batch {
		if c.seal != l.outSeal {
			if dirty {
				if err := l.out.Sync(); err != nil {
					return err
				}
			}
			f, err := l.segs.begin(c.seal)
			if err != nil {
				return fmt.Errorf("beginning a segment: %w", err)
			}
			old := l.out
			l.out, l.outSeal = f, c.seal
			if err := old.Close(); err != nil {
				return err
			}
		}
		if _, err := l.out.WriteAt(c.buf, c.off); err != nil {
			return err
		}
		dirty = true
	}
	return l.out.Sync()
}

// spareLoop keeps a zero-filled segment in reserve, so that beginning a new
// one does not hold up the committer.
func (l *Log) spareLoop() {
	for l.segs.waitForNeed() {
		// A full disk is no failure yet: the committer will try again when it
		// needs the segment, and may find space by then.
		if err := l.segs.makeSpare(); err != nil {
			l.log.Warn("cannot prepare a journal segment", "folder", l.dir, "error", err)
		}
	}
}
