package volume

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// filled returns a volume with so many files of the given size, in folders of
// perDir.
func filled(b testing.TB, files, perDir, size int) (*Volume, []Ino) {
	v := openTest(b, b.TempDir())
	must(b, v.Begin(ctx, 1))
	inos := fill(b, v, files, perDir, size)
	_, err := v.End(ctx)
	must(b, err)
	must(b, v.Commit(ctx, nil))
	return v, inos
}

func fill(b testing.TB, v *Volume, files, perDir, size int) []Ino {
	var inos []Ino
	data := make([]byte, size)
	var dir Ino
	for i := range files {
		if i%perDir == 0 {
			a, err := v.Mkdir(Root, fmt.Sprint("d", i/perDir), 0o755)
			must(b, err)
			dir = a.Ino
		}
		a, f, err := v.Create(dir, fmt.Sprint("f", i), 0o644, unix.O_WRONLY)
		must(b, err)
		copy(data, fmt.Sprint(i))
		_, err = f.WriteAt(data, 0)
		must(b, err)
		must(b, f.Close())
		inos = append(inos, a.Ino)
	}
	return inos
}

func BenchmarkRun(b *testing.B) {
	for _, c := range []struct{ files, perDir int }{{20, 100}, {10000, 100}, {100000, 100000}} {
		b.Run(fmt.Sprintf("files=%d/perDir=%d/touched=1", c.files, c.perDir), func(b *testing.B) {
			v, inos := filled(b, c.files, c.perDir, 100)
			runtime.GC()
			var begin, write, end, commit time.Duration
			seq := uint64(1)
			for b.Loop() {
				seq++
				t0 := time.Now()
				must(b, v.Begin(ctx, seq))
				t1 := time.Now()
				f, err := v.OpenFile(inos[int(seq)%len(inos)], unix.O_RDWR)
				must(b, err)
				_, err = f.WriteAt(fmt.Append(nil, seq), 0)
				must(b, err)
				must(b, f.Close())
				t2 := time.Now()
				_, err = v.End(ctx)
				must(b, err)
				t3 := time.Now()
				must(b, v.Commit(ctx, nil))
				begin, write, end, commit = begin+t1.Sub(t0), write+t2.Sub(t1), end+t3.Sub(t2), commit+time.Since(t3)
			}
			for _, m := range []struct {
				d    time.Duration
				name string
			}{{begin, "begin-µs"}, {write, "write-µs"}, {end, "end-µs"}, {commit, "commit-µs"}} {
				b.ReportMetric(float64(m.d.Nanoseconds())/float64(b.N)/1e3, m.name)
			}
		})
	}
}

// BenchmarkRewrite100MB compares End after rewriting 100 MB with hashing them.
func BenchmarkRewrite100MB(b *testing.B) {
	const size = 100 << 20
	v := openTest(b, b.TempDir())
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	var ino Ino
	seq := uint64(0)
	var end, hash time.Duration
	for b.Loop() {
		seq++
		must(b, v.Begin(ctx, seq))
		var f *File
		var err error
		if ino == 0 {
			var a Attr
			a, f, err = v.Create(Root, "big", 0o644, unix.O_RDWR)
			ino = a.Ino
		} else {
			f, err = v.OpenFile(ino, unix.O_RDWR|unix.O_TRUNC)
		}
		must(b, err)
		data[seq]++
		_, err = f.WriteAt(data, 0)
		must(b, err)
		must(b, f.Close())
		t := time.Now()
		_, err = v.End(ctx)
		must(b, err)
		end += time.Since(t)
		t = time.Now()
		_, _, err = statefs.HashContent(ctx, sliceReader(data), size, nil)
		must(b, err)
		hash += time.Since(t)
		must(b, v.Commit(ctx, nil))
	}
	b.ReportMetric(float64(end.Nanoseconds())/float64(b.N)/1e6, "end-ms")
	b.ReportMetric(float64(hash.Nanoseconds())/float64(b.N)/1e6, "blake3-ms")
	b.ReportMetric(float64(end)/float64(hash), "ratio")
}

type sliceReader []byte

func (s sliceReader) ReadAt(p []byte, off int64) (int, error) { return copy(p, s[off:]), nil }

// BenchmarkOverlay writes random 4 KiB blocks into an agreed file of 256 MB.
func BenchmarkOverlay(b *testing.B) {
	const size = 256 << 20
	v := openTest(b, b.TempDir())
	must(b, v.Begin(ctx, 1))
	a, f, err := v.Create(Root, "big", 0o644, unix.O_RDWR)
	must(b, err)
	for off := int64(0); off < size; off += 1 << 20 {
		_, err = f.WriteAt(make([]byte, 1<<20), off)
		must(b, err)
	}
	must(b, f.Close())
	_, err = v.End(ctx)
	must(b, err)
	must(b, v.Commit(ctx, nil))
	var write, end time.Duration
	const writes = 1000
	rnd := uint64(1)
	seq := uint64(1)
	block := make([]byte, 4096)
	for b.Loop() {
		seq++
		must(b, v.Begin(ctx, seq))
		t := time.Now()
		f, err := v.OpenFile(a.Ino, unix.O_RDWR)
		must(b, err)
		for range writes {
			rnd = rnd*6364136223846793005 + 1442695040888963407
			block[0]++
			_, err := f.WriteAt(block, int64(rnd>>33%(size/4096))*4096)
			must(b, err)
		}
		must(b, f.Close())
		write += time.Since(t)
		t = time.Now()
		_, err = v.End(ctx)
		must(b, err)
		end += time.Since(t)
		must(b, v.Commit(ctx, nil))
	}
	b.ReportMetric(float64(write.Nanoseconds())/float64(b.N)/writes/1e3, "µs/write")
	b.ReportMetric(float64(end.Nanoseconds())/float64(b.N)/1e6, "end-ms")
}

// BenchmarkCreate makes files of 1 KB, as the mount does: create, write through
// the backing descriptor, close.
func BenchmarkCreate(b *testing.B) {
	const files = 10000
	var make1, end, commit time.Duration
	for b.Loop() {
		v := openTest(b, b.TempDir())
		must(b, v.Begin(ctx, 1))
		t := time.Now()
		fill(b, v, files, files, 1024)
		make1 += time.Since(t)
		t = time.Now()
		_, err := v.End(ctx)
		must(b, err)
		end += time.Since(t)
		t = time.Now()
		must(b, v.Commit(ctx, nil))
		commit += time.Since(t)
		b.StopTimer()
		must(b, v.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(make1.Nanoseconds())/float64(b.N)/files/1e3, "µs/file")
	b.ReportMetric(float64(end.Nanoseconds())/float64(b.N)/1e6, "end-ms")
	b.ReportMetric(float64(commit.Nanoseconds())/float64(b.N)/1e6, "commit-ms")
}

// BenchmarkStage takes in 100,000 files of 1 KB from four goroutines.
func BenchmarkStage(b *testing.B) {
	const files = 100000
	var entries []statefs.Entry
	for i := range files {
		data := fileOf(i)
		entries = append(entries, statefs.Entry{Name: fmt.Sprintf("f%06d", i), Kind: statefs.KindFile, Mode: 0o644, Size: 1024, Hash: digest.Sum(data)})
	}
	node, pages, err := statefs.EncodeDir(entries, files, files*1024)
	must(b, err)
	root := statefs.HashDir(node)
	var put, change time.Duration
	for b.Loop() {
		v := openTest(b, b.TempDir())
		st, err := v.Stage(ctx)
		must(b, err)
		t := time.Now()
		must(b, st.PutNode(statefs.RefDir, root, node))
		for _, p := range pages {
			must(b, st.PutNode(statefs.RefPage, statefs.HashPage(p), p))
		}
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := w; i < files; i += 4 {
					if !st.HasFile(entries[i].Hash) {
						must(b, st.PutFile(entries[i].Hash, fileOf(i)))
					}
				}
			})
		}
		wg.Wait()
		put += time.Since(t)
		t = time.Now()
		must(b, st.Switch(ctx, statefs.Version{Seq: 1, Root: root}, nil))
		change += time.Since(t)
		must(b, st.Close())
		b.StopTimer()
		must(b, v.Close())
		b.StartTimer()
	}
	b.ReportMetric(put.Seconds()/float64(b.N), "put-s")
	b.ReportMetric(change.Seconds()/float64(b.N), "switch-s")
}

func fileOf(i int) []byte {
	data := make([]byte, 1024)
	copy(data, fmt.Sprint("file ", i))
	return data
}

// TestMemoryPerEntry tells what an entry costs.
func TestMemoryPerEntry(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 20,000 files")
	}
	const files = 20000
	dir := t.TempDir()
	v := openTest(t, dir)
	must(t, v.Begin(ctx, 1))
	fill(t, v, files, 1000, 10)
	_, err := v.End(ctx)
	must(t, err)
	must(t, v.Commit(ctx, nil))
	must(t, v.Close())
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	started := time.Now()
	v = openTest(t, dir)
	took := time.Since(started)
	rest := heap()
	for i := range files {
		d, err := v.Lookup(Root, fmt.Sprint("d", i/1000))
		must(t, err)
		_, err = v.Lookup(d.Ino, fmt.Sprint("f", i))
		must(t, err)
	}
	known := heap()
	at, live := (rest-before)/files, (known-rest)/files
	t.Logf("%d bytes per entry, %d more once the kernel knows it; opened in %v", at, live, took)
	if at > 300 || live > 300 {
		t.Errorf("an entry takes %d + %d bytes", at, live)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(v)
}
