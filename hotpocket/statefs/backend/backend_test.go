package backend

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/remote"
)

func open(t *testing.T, kind, dir string) statefs.State {
	t.Helper()
	s, err := Open(t.Context(), kind, statefs.Config{Dir: dir})
	if errors.Is(err, remote.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A state is handed from one kind to the other and back, with its root, its
// patch.cfg and the node's private files.
func TestTakeOver(t *testing.T) {
	dir := t.TempDir()
	var last statefs.Version
	var patch []byte
	kinds := []string{Dir, FUSE, Dir, FUSE, FUSE, Dir, Dir}
	for i, kind := range kinds {
		s := open(t, kind, dir)
		if v := s.Agreed(); i > 0 && (v.Root != last.Root || v.Patch != last.Patch || s.Damaged()) {
			t.Fatalf("%s after %s: agreed %s, want %s", kind, kinds[i-1], v, last)
		}
		if i > 0 && string(s.Patch()) != string(patch) {
			t.Fatalf("%s after %s: patch.cfg is %q", kind, kinds[i-1], s.Patch())
		}
		patch = fmt.Appendf(nil, `{"i":%d}`, i)
		if _, err := s.SetPatch(t.Context(), patch); err != nil {
			t.Fatal(err)
		}
		r, err := s.Begin(t.Context(), uint64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		in := func(name string) string { return filepath.Join(r.Dir(), name) }
		must(os.MkdirAll(in("sub/deep"), 0o750))
		must(os.WriteFile(in(fmt.Sprintf("sub/f%d", i)), fmt.Append(nil, "text ", i), 0o640))
		if i == 0 {
			must(os.WriteFile(in("large"), make([]byte, 3<<20), 0o755))
			must(os.Symlink("sub/f0", in("link")))
			must(os.WriteFile(in("../private"), []byte("mine"), 0o600))
		} else {
			f, err := os.OpenFile(in("large"), os.O_WRONLY, 0)
			must(err)
			_, err = f.WriteAt([]byte("changed"), int64(i)<<18)
			must(err)
			must(f.Close())
			b, err := os.ReadFile(in("../private"))
			if err != nil || string(b) != "mine" {
				t.Fatalf("%s after %s: private file %q, %v", kind, kinds[i-1], b, err)
			}
		}
		_, _, err = r.End(t.Context())
		must(err)
		must(r.Commit(t.Context()))
		last = s.Agreed()
		must(s.Close())
		if err := statefs.Release(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	if err := Check(t.Context(), Dir, dir); err != nil {
		t.Fatal(err)
	}
	if err := Check(t.Context(), FUSE, dir); err != nil && !errors.Is(err, remote.ErrUnavailable) {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Fatalf("%v is left, %v", list, err)
	}
	if _, err := Open(t.Context(), "x", statefs.Config{Dir: dir}); err == nil {
		t.Fatal("a kind that does not exist is opened")
	}
}
