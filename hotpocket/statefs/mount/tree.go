package mount

import (
	"evernode/hotpocket/statefs/volume"
)

// tree is what the writable mount shows: the working tree of a volume, or in
// tests something simpler. Its methods are those of volume.Volume and their
// errors go to the kernel.
type tree interface {
	Lookup(parent volume.Ino, name string) (volume.Attr, error)
	Forget(ino volume.Ino)
	Attr(ino volume.Ino) (volume.Attr, error)
	SetAttr(ino volume.Ino, c volume.Change) (volume.Attr, error)
	Create(parent volume.Ino, name string, mode, flags uint32) (volume.Attr, file, error)
	OpenFile(ino volume.Ino, flags uint32) (file, error)
	Mkdir(parent volume.Ino, name string, mode uint32) (volume.Attr, error)
	Mknod(parent volume.Ino, name string, mode uint32) (volume.Attr, error)
	Symlink(parent volume.Ino, name, target string) (volume.Attr, error)
	Readlink(ino volume.Ino) (string, error)
	Link(ino, parent volume.Ino, name string) (volume.Attr, error)
	Unlink(parent volume.Ino, name string) error
	Rmdir(parent volume.Ino, name string) error
	Rename(parent volume.Ino, name string, toParent volume.Ino, toName string, flags uint32) error
	OpenDir(ino volume.Ino) (listing, error)
	Statfs() (volume.StatfsInfo, error)
}

// file is an open file of a tree, as volume.File.
type file interface {
	Backing() (fd int, key uint64)
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Allocate(mode uint32, off, length int64) error
	Seek(off int64, whence int) (int64, error)
	Close() error
}

// listing is an open folder of a tree, as volume.DirStream.
type listing interface {
	Read(cookie uint64, fn func(volume.Dirent) bool) error
	Close()
}

// volumeTree is a volume as a tree.
type volumeTree struct{ *volume.Volume }

func (t volumeTree) Create(parent volume.Ino, name string, mode, flags uint32) (volume.Attr, file, error) {
	a, f, err := t.Volume.Create(parent, name, mode, flags)
	if err != nil {
		return a, nil, err
	}
	return a, f, nil
}

func (t volumeTree) OpenFile(ino volume.Ino, flags uint32) (file, error) {
	f, err := t.Volume.OpenFile(ino, flags)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (t volumeTree) OpenDir(ino volume.Ino) (listing, error) {
	d, err := t.Volume.OpenDir(ino)
	if err != nil {
		return nil, err
	}
	return &dirList{stream: d}, nil
}

// dirList numbers the entries of a folder one by one. The kernel keeps a listing
// and may go on with it in another stream when the folder has changed meanwhile,
// so equal listings must be numbered equally, however the volume holds them.
type dirList struct {
	stream *volume.DirStream
	// at is a place in the listing, and cookie what the stream calls it.
	at, cookie uint64
}

// Read implements listing.
func (l *dirList) Read(from uint64, fn func(volume.Dirent) bool) error {
	if from == 0 {
		l.at, l.cookie = 0, 0
	} else if from < l.at || l.at == 0 {
		l.at, l.cookie = 1, 1 // behind ".": from 0 the stream lists anew
	}
	for l.at < from {
		start := l.at
		err := l.stream.Read(l.cookie, func(e volume.Dirent) bool {
			if l.at == from {
				return false
			}
			l.at, l.cookie = l.at+1, e.Next
			return true
		})
		if err != nil || l.at == start {
			return err // there is nothing so far behind
		}
	}
	return l.stream.Read(l.cookie, func(e volume.Dirent) bool {
		next := e.Next
		e.Next = l.at + 1
		if !fn(e) {
			return false
		}
		l.at, l.cookie = l.at+1, next
		return true
	})
}

// Close implements listing.
func (l *dirList) Close() { l.stream.Close() }
