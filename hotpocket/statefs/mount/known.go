package mount

import (
	"sync"

	"evernode/hotpocket/statefs/volume"
)

// known counts what the kernel has been told of and not forgotten yet: those
// files may be cached, and only those need to be taken back.
type known struct {
	mu    sync.Mutex
	files map[volume.Ino]knownFile
	// top holds every name of the top folder that the kernel has asked for
	// since it was last told to forget them: dropping these entries drops
	// everything below.
	top map[string]struct{}
}

// knownFile is what the kernel may have of a file.
type knownFile struct {
	lookups uint64
	// cached: contents may be in the page cache of our file system, because it
	// was opened without passthrough.
	cached bool
	// stale: what is there may be old, because the backing file was written
	// since.
	stale bool
}

func newKnown() *known {
	return &known{files: make(map[volume.Ino]knownFile), top: make(map[string]struct{})}
}

// add notes that the kernel was told of a file once more.
func (k *known) add(ino volume.Ino) {
	k.mu.Lock()
	f := k.files[ino]
	f.lookups++
	k.files[ino] = f
	k.mu.Unlock()
}

// drop takes back n adds, and reports whether the kernel has forgotten the file.
func (k *known) drop(ino volume.Ino, n uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, ok := k.files[ino]
	if !ok {
		return false
	}
	if n < f.lookups {
		f.lookups -= n
		k.files[ino] = f
		return false
	}
	delete(k.files, ino)
	return true
}

// name notes that the kernel was answered about a name of the top folder.
func (k *known) name(parent volume.Ino, name string) {
	if parent != volume.Root {
		return
	}
	k.mu.Lock()
	k.top[name] = struct{}{}
	k.mu.Unlock()
}

// openServed notes that a file is about to be read through the page cache of our
// file system, and reports whether what is there can be kept.
func (k *known) openServed(ino volume.Ino) (keep bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.files[ino]
	keep = !f.stale
	f.cached, f.stale = true, false
	k.files[ino] = f
	return keep
}

// openPassed notes that the kernel may write a file's backing file from now on.
func (k *known) openPassed(ino volume.Ino) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.files[ino]; f.cached && !f.stale {
		f.stale = true
		k.files[ino] = f
	}
}

// all returns every file the kernel knows and the names of the top folder, which
// it then counts as forgotten.
func (k *known) all() (files []volume.Ino, names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for ino := range k.files {
		files = append(files, ino)
	}
	for name := range k.top {
		names = append(names, name)
	}
	clear(k.top)
	return files, names
}
