package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"evernode/internal/journal/disk"
)

const (
	// MaxBlob is the greatest length of a blob in bytes.
	MaxBlob    = 1 << 30
	maxName    = 64
	maxNames   = 1024
	keepBlobs  = 2
	blobMagic  = "EVBL\x00\x00\x00\x01"
	blobHeader = 28
	blobTemp   = ".tmp"
)

// blobs is a folder of larger values, each in a file of its own, NAME.SEQ:
//
//	magic "EVBL", version u32 | seq u64 | length u64 | crc u32 of all before and the data | data
type blobs struct {
	fs  disk.FS
	dir string
	mu  sync.Mutex
}

func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("name %q has %d characters, want 1 to %d", name, len(name), maxName)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return fmt.Errorf("name %q may have only a-z, 0-9, - and _", name)
		}
	}
	return nil
}

func blobFile(name string, seq uint64) string { return fmt.Sprintf("%s.%020d", name, seq) }

// open removes files that a crash has left unfinished.
func (b *blobs) open() error {
	if err := b.fs.MkdirAll(b.dir); err != nil {
		return err
	}
	names, err := b.fs.List(b.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, blobTemp) {
			if err := b.fs.Remove(path.Join(b.dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// PutBlob stores data as it was at ledger seq under a name, in a file of its
// own, and returns when it is durable: callers are background goroutines. All
// that was appended before is made durable first, so that no blob tells of a
// ledger that a crash takes away. The newest two of each name are kept. A
// failure leaves the earlier ones as they were and does not stop the store.
func (s *Store) PutBlob(ctx context.Context, name string, seq uint64, data []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := s.journal.Sync(ctx, s.journal.Next()-1); err != nil {
		return fmt.Errorf("storing blob %s of ledger %d: %w", name, seq, err)
	}
	if len(data) > MaxBlob {
		return fmt.Errorf("blob %s has %d bytes, at most %d are allowed", name, len(data), MaxBlob)
	}
	b := &s.blobs
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.write(blobFile(name, seq), seq, data); err != nil {
		return fmt.Errorf("storing blob %s of ledger %d: %w", name, seq, err)
	}
	seqs, err := b.list(name)
	if err != nil {
		return err
	}
	for len(seqs) > keepBlobs {
		if err := b.fs.Remove(path.Join(b.dir, blobFile(name, seqs[0]))); err != nil {
			return fmt.Errorf("deleting old blob %s: %w", name, err)
		}
		seqs = seqs[1:]
	}
	return nil
}

func (b *blobs) write(file string, seq uint64, data []byte) error {
	temp := path.Join(b.dir, file+blobTemp)
	f, err := b.fs.Create(temp)
	if err != nil {
		return err
	}
	h := append(make([]byte, 0, blobHeader), blobMagic...)
	h = binary.BigEndian.AppendUint64(h, seq)
	h = binary.BigEndian.AppendUint64(h, uint64(len(data)))
	h = binary.BigEndian.AppendUint32(h, crc32.Update(crc32.Checksum(h, castagnoli), castagnoli, data))
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(h, 0)
	}
	if err == nil {
		_, err = f.WriteAt(data, blobHeader)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, b.fs.Remove(temp))
	}
	if err := b.fs.Rename(temp, path.Join(b.dir, file)); err != nil {
		return err
	}
	return b.fs.SyncDir(b.dir)
}

// list returns the ledgers of the blobs of a name, ascending.
func (b *blobs) list(name string) ([]uint64, error) {
	names, err := b.fs.List(b.dir)
	if err != nil {
		return nil, err
	}
	var seqs []uint64
	for _, n := range names {
		rest, ok := strings.CutPrefix(n, name+".")
		if !ok {
			continue
		}
		if seq, err := strconv.ParseUint(rest, 10, 64); err == nil && blobFile(name, seq) == n {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	return seqs, nil
}

// Blobs returns the ledgers of which a blob of that name is stored, ascending.
func (s *Store) Blobs(name string) ([]uint64, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	s.blobs.mu.Lock()
	defer s.blobs.mu.Unlock()
	return s.blobs.list(name)
}

// Blob returns the blob that was stored under a name for ledger seq. A missing
// one is an error that satisfies errors.Is(err, fs.ErrNotExist).
func (s *Store) Blob(name string, seq uint64) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	file := path.Join(s.blobs.dir, blobFile(name, seq))
	f, err := s.fs.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading blob %s of ledger %d: %w", name, seq, err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("reading blob %s of ledger %d: %w", name, seq, err)
	}
	if size < blobHeader || size > MaxBlob+blobHeader {
		return nil, fmt.Errorf("%s is damaged: it has %d bytes", file, size)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
		return nil, fmt.Errorf("reading blob %s of ledger %d: %w", name, seq, err)
	}
	data, err := parseBlob(b, seq)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", file, err)
	}
	return data, nil
}

func parseBlob(b []byte, seq uint64) ([]byte, error) {
	if len(b) < blobHeader || !bytes.HasPrefix(b, []byte(blobMagic)) {
		return nil, errors.New("it does not begin like a blob")
	}
	data := b[blobHeader:]
	if n := binary.BigEndian.Uint64(b[16:]); n != uint64(len(data)) {
		return nil, fmt.Errorf("it has %d bytes of data, its header says %d", len(data), n)
	}
	if n := binary.BigEndian.Uint64(b[8:]); n != seq {
		return nil, fmt.Errorf("it is of ledger %d, its name says %d", n, seq)
	}
	if binary.BigEndian.Uint32(b[24:]) != crc32.Update(crc32.Checksum(b[:24], castagnoli), castagnoli, data) {
		return nil, errors.New("its checksum is wrong")
	}
	return data, nil
}
