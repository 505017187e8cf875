package volume

import (
	"os"
	"testing"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// FuzzSide reads what lies beside an object: nothing but what was written is
// taken, and nothing makes it panic.
func FuzzSide(f *testing.F) {
	sd := side{size: 100000, limit: 70000, bits: bitmap{1, 1 << 63}, values: []digest.Hash{{1}, {2}}}
	f.Add(sd.encode())
	f.Add((&side{}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		sd, err := decodeSide(b)
		// Past the hash at the end, as if somebody had computed it.
		again := append(append([]byte{}, b...), make([]byte, digest.Size)...)
		h := digest.Sum(b)
		copy(again[len(b):], h[:])
		_, _ = decodeSide(again)
		if err == nil && string(sd.encode()) != string(b) {
			t.Error("read something else than what is written")
		}
	})
}

// FuzzLog gives the loader records with right checks and arbitrary payloads.
func FuzzLog(f *testing.F) {
	root := &node{ino: Root, mode: unix.S_IFDIR | 0o755}
	if err := sealFolder(root, nil, 0); err != nil {
		f.Fatal(err)
	}
	e := endRecord{full: true, seq: 1, root: root.hash, next: 5, top: root}
	c := commitRecord{ended: true, v: statefs.Version{Seq: 1, Root: root.hash}}
	b := &batch{}
	w := &dirWriter{b: b, ino: Root}
	w.put("f", &node{mode: unix.S_IFREG | 0o644, ino: 2, size: 10, obj: 3, body: &layers{[]*layer{{obj: 4, limit: 5}}}})
	w.put("l", &node{mode: unix.S_IFLNK | 0o777, ino: 3, body: "x"})
	w.put("d", &node{mode: unix.S_IFDIR | 0o755, ino: 4})
	w.put("gone", nil)
	w.close()
	f.Add(b.dirs, e.encode(), c.encode())
	f.Add([]byte{}, e.encode(), c.encode())
	f.Fuzz(func(t *testing.T, dirs, end, commit []byte) {
		l := &loader{}
		for _, r := range []struct {
			kind    byte
			payload []byte
		}{{recHead, []byte(logMagic)}, {recDirs, dirs}, {recEnd, end}, {recCommit, commit}} {
			if err := l.record(r.kind, r.payload, 1); err != nil {
				return
			}
		}
		if n, err := l.build(); err == nil && n.hash != l.agreed.v.Root {
			t.Error("a tree with another root was taken")
		}
	})
}

// FuzzRecords reads a file of records as a crash may have left it.
func FuzzRecords(f *testing.F) {
	b := &batch{}
	b.add(recHead, []byte(logMagic))
	b.add(recBoot, []byte("boot"))
	f.Add(b.buf)
	f.Add(b.buf[:len(b.buf)-1])
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := os.CreateTemp(t.TempDir(), "log")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Write(data); err != nil {
			t.Fatal(err)
		}
		for _, chain := range []bool{false, true} {
			last := int64(0)
			size, _, err := readRecords(file, chain, func(_ byte, p []byte, end int64) error {
				if end != last+int64(len(p)+recOver) {
					t.Errorf("record ends at %d, after %d", end, last)
				}
				last = end
				return nil
			})
			if err != nil || size != last || size > int64(len(data)) {
				t.Errorf("%d of %d bytes: %v", size, len(data), err)
			}
		}
	})
}
