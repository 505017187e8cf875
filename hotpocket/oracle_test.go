package hotpocket

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"testing"

	"evernode/hotpocket/statefs"
	"evernode/hotpocket/testdata/scribe/script"
	"evernode/internal/digest"
)

// oracle knows what the state has to be after the inputs of the scribe: it keeps
// the files in memory and computes the root from nothing but the definition of
// the hashed form.
type oracle struct {
	files map[string]*oracleFile // path to what is there; folders too
}

type oracleFile struct {
	kind statefs.Kind
	mode uint16
	data []byte
	hash digest.Hash // of data; zero when not known
	link string
}

func newOracle(program string, t *testing.T) *oracle {
	t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return &oracle{files: map[string]*oracleFile{"contract": {kind: statefs.KindFile, mode: 0o755, data: b}}}
}

// do takes the steps of one input.
func (o *oracle) do(n uint64) {
	if o.files[script.Big] == nil {
		o.files[script.Big] = &oracleFile{kind: statefs.KindFile, mode: 0o644, data: make([]byte, script.BigSize)}
	}
	for _, s := range script.Steps(n) {
		o.take(s)
	}
	if o.files["log"] == nil {
		o.files["log"] = &oracleFile{kind: statefs.KindFile, mode: 0o644}
	}
	o.files["log"].change(append(o.files["log"].data, fmt.Sprintln(n)...))
}

func (f *oracleFile) change(data []byte) { f.data, f.hash = data, digest.Hash{} }

func (o *oracle) mkdir(p string) {
	for ; p != "."; p = path.Dir(p) {
		if o.files[p] == nil {
			o.files[p] = &oracleFile{kind: statefs.KindDir, mode: 0o755}
		}
	}
}

func (o *oracle) take(s script.Step) {
	o.mkdir(path.Dir(s.Path))
	f := o.files[s.Path]
	switch s.Kind {
	case script.Create:
		if f == nil {
			f = &oracleFile{kind: statefs.KindFile, mode: 0o644}
			o.files[s.Path] = f
		}
		f.change(append([]byte(nil), s.Data...))
		return
	case script.Mkdir:
		o.mkdir(s.Path)
		return
	case script.Symlink:
		o.files[s.Path] = &oracleFile{kind: statefs.KindSymlink, mode: 0o777, link: s.To}
		return
	}
	if f == nil || f.kind != statefs.KindFile {
		return
	}
	switch s.Kind {
	case script.Append:
		f.change(append(f.data, s.Data...))
	case script.Patch:
		copy(f.data[s.Offset:], s.Data)
		f.change(f.data)
	case script.Truncate:
		if int64(len(f.data)) > s.Offset {
			f.change(f.data[:s.Offset:s.Offset])
		}
	case script.Rename:
		o.mkdir(path.Dir(s.To))
		delete(o.files, s.Path)
		o.files[s.To] = f
	case script.Remove:
		delete(o.files, s.Path)
	case script.Chmod:
		f.mode = uint16(s.Mode)
	}
}

// root computes the root of the state.
func (o *oracle) root(t *testing.T) digest.Hash {
	t.Helper()
	below := map[string][]string{}
	for p := range o.files {
		below[path.Dir(p)] = append(below[path.Dir(p)], p)
	}
	var dir func(p string) (h digest.Hash, entries, bytes uint64)
	dir = func(p string) (h digest.Hash, entries, bytes uint64) {
		paths := below[p]
		sort.Strings(paths) // in one folder: by name
		var list []statefs.Entry
		for _, q := range paths {
			f := o.files[q]
			e := statefs.Entry{Name: path.Base(q), Kind: f.kind, Mode: f.mode, Link: f.link}
			entries++
			switch f.kind {
			case statefs.KindFile:
				if f.hash.IsZero() {
					f.hash = digest.Sum(f.data)
				}
				e.Size, e.Hash = uint64(len(f.data)), f.hash
				bytes += e.Size
			case statefs.KindDir:
				var n, b uint64
				e.Hash, n, b = dir(q)
				entries += n
				bytes += b
			}
			list = append(list, e)
		}
		node, _, err := statefs.EncodeDir(list, entries, bytes)
		if err != nil {
			t.Fatal(err)
		}
		return statefs.HashDir(node), entries, bytes
	}
	h, _, _ := dir(".")
	return h
}

// compare reports where a folder differs from what the oracle has.
func (o *oracle) compare(dir string) error {
	seen := 0
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := o.files[rel]
		if f == nil {
			return fmt.Errorf("%s should not be there", rel)
		}
		seen++
		switch f.kind {
		case statefs.KindFile:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if !info.Mode().IsRegular() || info.Mode().Perm() != fs.FileMode(f.mode) || string(b) != string(f.data) {
				return fmt.Errorf("%s: %v with %d bytes, want mode %o and %d bytes of other content or mode", rel, info.Mode(), len(b), f.mode, len(f.data))
			}
		case statefs.KindSymlink:
			if to, err := os.Readlink(p); err != nil || to != f.link {
				return fmt.Errorf("%s: link to %q, %v, want %q", rel, to, err, f.link)
			}
		case statefs.KindDir:
			if !d.IsDir() {
				return fmt.Errorf("%s is no folder", rel)
			}
		}
		return nil
	})
	if err == nil && seen != len(o.files) {
		err = fmt.Errorf("%d names, want %d", seen, len(o.files))
	}
	return err
}
