package statesync

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// behind brings a node up to date that has the state before change, and returns
// how many bytes went over the network, in both directions, and how many bytes
// the state has.
func behind(t testing.TB, fill, change func(dir string)) (moved, size uint64) {
	t.Helper()
	a, b := newNode(t, fill), newNode(t, fill)
	if a.Agreed() != b.Agreed() {
		t.Fatal("two nodes with one state have two roots")
	}
	v := a.run(t, 2, change)
	var p Progress
	c, blamed := client(b, newNetwork(a, a, a), func(c *Config) { c.Progress = func(x Progress) { p = x } })
	syncTo(t, c, v)
	sameState(t, a, b)
	if len(blamed.m) > 0 {
		t.Errorf("blamed %v", blamed.m)
	}
	if p.TotalBytes != p.DoneBytes || p.TotalBytes == 0 {
		t.Errorf("progress says %d of %d bytes at the end", p.DoneBytes, p.TotalBytes)
	}
	must(t, filepath.WalkDir(a.state(), func(_ string, e fs.DirEntry, err error) error {
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
			size += uint64(fi.Size())
		}
		return err
	}))
	return p.FetchedBytes + p.SentBytes, size
}

func manyFiles(t testing.TB, folders, each, size int) func(dir string) {
	return func(dir string) {
		data := make([]byte, size)
		for i := range folders {
			d := fmt.Sprintf("%s/folder%d", dir, i)
			must(t, os.Mkdir(d, 0o755))
			for j := range each {
				binary.LittleEndian.PutUint64(data, uint64(i)<<32|uint64(j))
				must(t, os.WriteFile(fmt.Sprintf("%s/file%05d", d, j), data, 0o644))
			}
		}
	}
}

// A node of whose state one part in a hundred has changed fetches not more than
// two parts in a hundred, requests and folders included.
func TestLittleIsFetchedByANodeThatIsALittleBehind(t *testing.T) {
	const mb = 1 << 20
	big := func(t testing.TB) func(string) {
		return func(dir string) { writeRandom(t, dir+"/big", 24*mb, 1) }
	}
	in := func(t testing.TB, name string, f func(f *os.File, rng *rand.Rand)) {
		file, err := os.OpenFile(name, os.O_RDWR, 0)
		must(t, err)
		f(file, rand.New(rand.NewPCG(9, 9)))
		must(t, file.Close())
	}
	rewrite := func(t testing.TB, dir string, folders, each, n, size int) {
		rng := rand.New(rand.NewPCG(8, 8))
		for range n {
			data := randomBytes(rng.Uint64(), size)
			must(t, os.WriteFile(fmt.Sprintf("%s/folder%d/file%05d", dir, rng.IntN(folders), rng.IntN(each)), data, 0o644))
		}
	}
	for name, c := range map[string]struct {
		fill, change func(dir string)
	}{
		"scattered 4 KiB in a large file": {big(t), func(dir string) {
			in(t, dir+"/big", func(f *os.File, rng *rand.Rand) {
				for range 24 * mb / 100 / 4096 {
					f.WriteAt(randomBytes(rng.Uint64(), 4096), rng.Int64N(24*mb/4096)*4096)
				}
			})
		}},
		"a stretch of a large file": {big(t), func(dir string) {
			in(t, dir+"/big", func(f *os.File, _ *rand.Rand) { f.WriteAt(randomBytes(1, 24*mb/100), 5*mb+77) })
		}},
		"a large file grows": {big(t), func(dir string) {
			in(t, dir+"/big", func(f *os.File, _ *rand.Rand) { f.WriteAt(randomBytes(1, 24*mb/100), 24*mb) })
		}},
		"files of a large folder": {manyFiles(t, 1, 5000, 1024), func(dir string) { rewrite(t, dir, 1, 5000, 50, 1024) }},
		"files of many folders":   {manyFiles(t, 50, 100, 1024), func(dir string) { rewrite(t, dir, 50, 100, 50, 1024) }},
		"files of 60 KB changed in place": {manyFiles(t, 4, 100, 60<<10), func(dir string) {
			for i := range 60 {
				in(t, fmt.Sprintf("%s/folder%d/file%05d", dir, i%4, i), func(f *os.File, _ *rand.Rand) { f.WriteAt([]byte("changed"), 20000) })
			}
		}},
		"files and folders renamed": {manyFiles(t, 10, 300, 1024), func(dir string) {
			must(t, os.Mkdir(dir+"/sub", 0o755))
			must(t, os.Rename(dir+"/folder3", dir+"/sub/moved"))
			for i := range 30 {
				must(t, os.Rename(fmt.Sprintf("%s/folder1/file%05d", dir, i*10), fmt.Sprintf("%s/folder2/new%d", dir, i)))
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			moved, size := behind(t, c.fill, c.change)
			ratio := float64(moved) / float64(size)
			t.Logf("%d of %d bytes: %.2f %%", moved, size, 100*ratio)
			if ratio > 0.02 {
				t.Errorf("%d bytes went over the network for a state of %d: %.2f %%", moved, size, 100*ratio)
			}
		})
	}
}

// A file of which everything is different is not compared to its end.
func TestDeltasAreGivenUpWhereTheyDoNotHelp(t *testing.T) {
	moved, size := behind(t, func(dir string) { writeRandom(t, dir+"/big", 16<<20, 1) }, func(dir string) { writeRandom(t, dir+"/big", 16<<20, 2) })
	if moved > size+size/100 {
		t.Errorf("%d bytes went over the network for %d", moved, size)
	}
}
