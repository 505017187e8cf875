package journal

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"evernode/internal/journal/disk"
)

// recover reads the folder, hands out its records and leaves the log ready to
// append after the last one.
func (l *Log) recover(visit func(Entry) error) (Recovery, error) {
	l.segs.need = make(chan struct{}, 1)
	l.segs.done = make(chan struct{})
	if err := l.listFiles(); err != nil {
		return Recovery{}, err
	}
	rec := Recovery{First: 1, Last: 0}
	unused, err := l.dropUnused()
	if err != nil {
		return rec, err
	}
	for i, first := range l.segs.firsts {
		if i == 0 {
			rec.First, rec.Last = first, first-1
		} else if err := l.checkComplete(rec.Last, first); err != nil {
			return rec, err
		}
		if err := l.readSegment(first, i == len(l.segs.firsts)-1, &rec, visit); err != nil {
			return rec, err
		}
	}
	if unused != 0 {
		if err := l.checkComplete(rec.Last, unused); err != nil {
			return rec, err
		}
	}
	l.next, l.durable, l.marked = rec.Last+1, rec.Last, rec.Last
	if len(l.segs.firsts) == 0 {
		l.at = seal{first: l.next, salt: l.opts.salt()}
		f, err := l.segs.begin(l.at)
		if err != nil {
			return rec, err
		}
		l.out, l.outSeal, l.off = f, l.at, headerSize
	}
	l.segs.wantSpare()
	return rec, nil
}

// listFiles fills the set of segments and removes what a crash left over.
func (l *Log) listFiles() error {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		switch name {
		case lockName:
			continue
		case spareTempName:
			if err := l.fs.Remove(l.segs.path(name)); err != nil {
				return err
			}
			continue
		case spareName:
			// A spare that is not all zeros was given a segment's name and header
			// just before a crash that took the name away again.
			b, err := l.readFile(l.segs.path(name))
			if err != nil {
				return err
			}
			if int64(len(b)) == l.opts.SegmentSize && allZero(b) {
				l.segs.hasSpare = true
			} else if err := l.fs.Remove(l.segs.path(name)); err != nil {
				return err
			}
			continue
		}
		var first uint64
		if _, err := fmt.Sscanf(name, namePattern, &first); err != nil || segmentName(first) != name || first == 0 {
			l.log.Warn("file in the journal folder is not ours; left alone", "file", l.segs.path(name))
			continue
		}
		l.segs.firsts = append(l.segs.firsts, first)
	}
	slices.Sort(l.segs.firsts)
	return nil
}

// dropUnused removes the last segment when it is still without a header: a
// crash came just after it got its name. It returns the LSN it was to begin
// with, 0 when there is no such segment.
func (l *Log) dropUnused() (uint64, error) {
	n := len(l.segs.firsts)
	if n == 0 {
		return 0, nil
	}
	first := l.segs.firsts[n-1]
	name := l.segs.path(segmentName(first))
	b, err := l.readFile(name)
	if err != nil {
		return 0, err
	}
	if !allZero(b) {
		return 0, nil
	}
	if err := l.fs.Remove(name); err != nil {
		return 0, err
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return 0, err
	}
	l.segs.firsts = l.segs.firsts[:n-1]
	return first, nil
}

// checkComplete uses that a segment is begun only after the one before it is
// durable to its end.
func (l *Log) checkComplete(have, next uint64) error {
	if have+1 == next {
		return nil
	}
	var before string
	for _, first := range l.segs.firsts {
		if first < next {
			before = segmentName(first)
		}
	}
	if before == "" {
		return fmt.Errorf("the journal segments before %s are missing", l.segs.path(segmentName(next)))
	}
	return fmt.Errorf("journal records %d to %d are missing: a segment after %s was removed, or it is damaged at offset %d",
		have+1, next-1, l.segs.path(before), l.readTo)
}

// readSegment hands out the records of a segment. The last segment becomes the
// one to append to.
func (l *Log) readSegment(first uint64, last bool, rec *Recovery, visit func(Entry) error) error {
	name := l.segs.path(segmentName(first))
	f, err := l.fs.Open(name)
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			f.Close()
		}
	}()
	b, err := readAll(f)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	at, err := parseHeader(b)
	if errors.Is(err, errInvalid) {
		// The header is durable before the first record is written, and a last
		// segment of zeros has been dropped.
		return fmt.Errorf("%s is damaged at offset 0: no valid segment header", name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if at.first != first {
		return fmt.Errorf("%s is damaged at offset 0: its header says that it begins with record %d", name, at.first)
	}
	off := int64(headerSize)
	for {
		kind, payload, n, err := parseRecord(b[off:], at, off)
		if err != nil {
			break
		}
		off += int64(n)
		if kind == kindMark {
			continue
		}
		if rec.Last == math.MaxUint64 {
			return fmt.Errorf("%s: record numbers have run out", name)
		}
		rec.Last++
		if err := visit(Entry{LSN: rec.Last, Kind: kind, Payload: payload}); err != nil {
			return fmt.Errorf("record %d in %s: %w", rec.Last, name, err)
		}
	}
	l.readTo = off
	if !last {
		return nil
	}
	if proved := provedDurable(b[off:], at, off); proved > rec.Last {
		return fmt.Errorf("%s is damaged at offset %d: record %d is unreadable but was durable up to record %d",
			name, off, rec.Last+1, proved)
	}
	if end := lastNonZero(b[off:]); end > 0 {
		rec.CutBytes, rec.CutFile, rec.CutOffset = int64(end), name, off
		// What is left of records that never became durable must not follow
		// the records that are now appended in their place.
		if err := zero(f, off, off+int64(end)); err != nil {
			return fmt.Errorf("cutting %s: %w", name, err)
		}
	}
	// Also without a cut: what we have read may be in the page cache only, when
	// it was the process that died and not the machine.
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", name, err)
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	keep = true
	l.out, l.outSeal, l.at, l.off = f, at, at, off
	return nil
}

func (l *Log) readFile(name string) ([]byte, error) {
	f, err := l.fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readAll(f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return b, nil
}

func readAll(f disk.File) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > maxPayload+1<<26 {
		return nil, fmt.Errorf("%d bytes are more than a segment can have", size)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
		return nil, err
	}
	return b, nil
}

func allZero(b []byte) bool { return lastNonZero(b) == 0 }

// lastNonZero returns the length of b without its trailing zeros.
func lastNonZero(b []byte) int {
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return n
}
