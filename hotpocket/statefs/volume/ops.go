package volume

import (
	"strings"

	"golang.org/x/sys/unix"
)

// now returns the time as files get it. The kernel stamps the objects that it
// writes by its coarse clock, and times must not go backwards between the two.
func now() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// begin takes v.mu for a change of the working tree.
func (v *Volume) change() error {
	v.mu.Lock()
	if !v.writable {
		v.mu.Unlock()
		return unix.EROFS
	}
	return nil
}

// touch remembers how an inode was before the run changes it. The caller holds
// v.mu for writing.
func (v *Volume) touch(in *inode) {
	if in.undo == nil {
		in.undo = &undo{base: in.n, parent: in.parent, name: in.name}
		v.run.touched = append(v.run.touched, in)
	}
}

// make enters a new inode into the working tree.
func (v *Volume) make(parent *inode, name string, mode uint32, body any) *inode {
	t := now()
	ino := Ino(v.nextIno.Add(1))
	in := &inode{
		ino: ino, n: &node{ino: ino, mode: uint16(mode), body: body}, mode: mode, nlink: 1,
		mtime: t, ctime: t, atime: t, parent: parent, name: name, undo: &undo{},
	}
	if in.isDir() {
		in.dir = &ldir{run: v.run.id}
		in.nlink = 2
	}
	v.live[ino] = in
	v.run.touched = append(v.run.touched, in)
	v.enter(parent, name, in, t)
	return in
}

// enter adds a name to a folder.
func (v *Volume) enter(parent *inode, name string, in *inode, t int64) {
	v.touch(parent)
	parent.dir.insert(name, in.n, v.run.id)
	parent.mtime, parent.ctime = t, t
	if in.isDir() {
		parent.nlink++
	}
}

// leave takes a name out of a folder.
func (v *Volume) leave(parent *inode, name string, in *inode, t int64) {
	v.touch(parent)
	parent.dir.remove(name, v.run.id)
	parent.mtime, parent.ctime = t, t
	if in.isDir() {
		parent.nlink--
	}
}

// place checks that a name is free in a folder that still exists.
func (v *Volume) place(parent Ino, name string) (*inode, error) {
	if err := validName(name); err != nil {
		return nil, err
	}
	p, err := v.getDir(parent)
	if err != nil {
		return nil, err
	}
	if p.nlink == 0 {
		return nil, unix.ENOENT
	}
	if p.dir.find(name) != nil {
		return nil, unix.EEXIST
	}
	return p, nil
}

// Lookup returns the attributes of the entry name of a folder.
func (v *Volume) Lookup(parent Ino, name string) (Attr, error) {
	if len(name) > 255 {
		return Attr{}, unix.ENAMETOOLONG
	}
	v.mu.RLock()
	p, err := v.getDir(parent)
	if err != nil {
		v.mu.RUnlock()
		return Attr{}, err
	}
	n := p.dir.find(name)
	if n == nil {
		v.mu.RUnlock()
		return Attr{}, unix.ENOENT
	}
	if in := v.live[n.ino]; in != nil {
		defer v.mu.RUnlock()
		return in.attr(), nil
	}
	v.mu.RUnlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if p, err = v.getDir(parent); err != nil {
		return Attr{}, err
	}
	in := v.child(p, name)
	if in == nil {
		return Attr{}, unix.ENOENT
	}
	return in.attr(), nil
}

// Forget tells that the kernel no longer knows a file, so that what is kept for
// it in memory can go. The caller makes sure that no Lookup that returned the
// number is under way.
func (v *Volume) Forget(ino Ino) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if in := v.live[ino]; in != nil && !in.isDir() && in.undo == nil && in.file == nil {
		delete(v.live, ino)
	}
}

// Attr returns the attributes of a file. ESTALE when it does not exist (any
// more).
func (v *Volume) Attr(ino Ino) (Attr, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	in, err := v.get(ino)
	if err != nil {
		return Attr{}, err
	}
	return in.attr(), nil
}

// SetAttr changes attributes and returns the new ones.
func (v *Volume) SetAttr(ino Ino, c Change) (Attr, error) {
	if c.Size != nil {
		if err := v.truncate(ino, *c.Size); err != nil {
			return Attr{}, err
		}
	}
	if c.Atime != nil || c.Mtime != nil {
		if err := v.setTimes(ino, c.Atime, c.Mtime); err != nil {
			return Attr{}, err
		}
	}
	if c.Mode == nil {
		return v.Attr(ino)
	}
	if err := v.change(); err != nil {
		return Attr{}, err
	}
	defer v.mu.Unlock()
	in, err := v.get(ino)
	if err != nil {
		return Attr{}, err
	}
	if in.mode&unix.S_IFMT == unix.S_IFLNK {
		return Attr{}, unix.EOPNOTSUPP
	}
	v.touch(in)
	in.mode = in.mode&unix.S_IFMT | *c.Mode&permBits
	in.ctime = now()
	return in.attr(), nil
}

// Mkdir makes a folder with permission bits mode.
func (v *Volume) Mkdir(parent Ino, name string, mode uint32) (Attr, error) {
	if err := v.change(); err != nil {
		return Attr{}, err
	}
	defer v.mu.Unlock()
	p, err := v.place(parent, name)
	if err != nil {
		return Attr{}, err
	}
	// As on other file systems: what makes new files take their folder's group
	// is inherited by folders.
	mode = mode&permBits | p.mode&unix.S_ISGID
	return v.make(p, name, unix.S_IFDIR|mode, &dirver{}).attr(), nil
}

// Mknod makes a socket, pipe or empty regular file as mode (st_mode) says;
// devices are refused with EPERM. Sockets and pipes vanish at End.
func (v *Volume) Mknod(parent Ino, name string, mode uint32) (Attr, error) {
	switch mode & unix.S_IFMT {
	case 0, unix.S_IFREG:
		a, f, err := v.Create(parent, name, mode&permBits, unix.O_WRONLY)
		if err != nil {
			return a, err
		}
		return a, f.Close()
	case unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return Attr{}, unix.EPERM
	}
	if err := v.change(); err != nil {
		return Attr{}, err
	}
	defer v.mu.Unlock()
	p, err := v.place(parent, name)
	if err != nil {
		return Attr{}, err
	}
	return v.make(p, name, mode&(unix.S_IFMT|permBits), nil).attr(), nil
}

// Symlink makes a symbolic link.
func (v *Volume) Symlink(parent Ino, name, target string) (Attr, error) {
	switch {
	case target == "":
		return Attr{}, unix.ENOENT
	case len(target) > 4095:
		return Attr{}, unix.ENAMETOOLONG
	case strings.Contains(target, "\x00"):
		return Attr{}, unix.EINVAL
	}
	if err := v.change(); err != nil {
		return Attr{}, err
	}
	defer v.mu.Unlock()
	p, err := v.place(parent, name)
	if err != nil {
		return Attr{}, err
	}
	return v.make(p, name, unix.S_IFLNK|0o777, target).attr(), nil
}

// Readlink returns the target of a symbolic link.
func (v *Volume) Readlink(ino Ino) (string, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	in, err := v.get(ino)
	if err != nil {
		return "", err
	}
	if in.mode&unix.S_IFMT != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	return in.n.link(), nil
}

// maxLinks is the largest number of names of a file, as on ext4.
const maxLinks = 65000

// Link gives a file one more name. End makes it a file of its own.
func (v *Volume) Link(ino, parent Ino, name string) (Attr, error) {
	if err := v.change(); err != nil {
		return Attr{}, err
	}
	defer v.mu.Unlock()
	in, err := v.get(ino)
	if err != nil {
		return Attr{}, err
	}
	if in.isDir() {
		return Attr{}, unix.EPERM
	}
	if in.nlink == 0 {
		return Attr{}, unix.ENOENT
	}
	if in.nlink >= maxLinks {
		return Attr{}, unix.EMLINK
	}
	p, err := v.place(parent, name)
	if err != nil {
		return Attr{}, err
	}
	t := now()
	v.touch(in)
	v.enter(p, name, in, t)
	in.more = append(in.more, nameRef{p, name})
	in.nlink++
	in.ctime = t
	return in.attr(), nil
}

// dropName removes one name of an inode that is not a folder.
func (v *Volume) dropName(parent *inode, name string, in *inode, t int64) {
	v.leave(parent, name, in, t)
	v.touch(in)
	in.ctime = t
	in.nlink--
	if in.parent == parent && in.name == name {
		in.parent, in.name = nil, ""
		if len(in.more) > 0 {
			last := in.more[len(in.more)-1]
			in.parent, in.name, in.more = last.parent, last.name, in.more[:len(in.more)-1]
		}
	} else {
		for i, m := range in.more {
			if m.parent == parent && m.name == name {
				in.more[i] = in.more[len(in.more)-1]
				in.more = in.more[:len(in.more)-1]
				break
			}
		}
	}
	if in.nlink == 0 {
		v.gone(in)
	}
}

// gone lets go of what a file without a name kept, unless it is open. The caller
// holds mu.
func (v *Volume) gone(in *inode) {
	if f := in.file; f != nil && f.io.TryLock() {
		v.goneLocked(in, f)
		f.io.Unlock()
	}
	// Who has io calls unlockFile.
}

// goneLocked is gone with the file's io held, too.
func (v *Volume) goneLocked(in *inode, f *file) {
	if f.open != nil {
		return
	}
	if f.scratch != nil {
		f.scratch.put()
	}
	if f.own || f.fresh {
		v.reap(f.obj, in.size)
		f.obj, f.own, f.fresh, f.scratch = 0, false, false, nil
	}
	if f.over != nil {
		f.over.close()
		v.reap(f.over.obj, 0)
		f.over = nil
	}
}

// Unlink removes a name of anything but a folder. The file lives on until its
// last File is closed.
func (v *Volume) Unlink(parent Ino, name string) error {
	if err := v.change(); err != nil {
		return err
	}
	defer v.mu.Unlock()
	p, err := v.getDir(parent)
	if err != nil {
		return err
	}
	in := v.child(p, name)
	if in == nil {
		return unix.ENOENT
	}
	if in.isDir() {
		return unix.EISDIR
	}
	v.dropName(p, name, in, now())
	return nil
}

// Rmdir removes an empty folder.
func (v *Volume) Rmdir(parent Ino, name string) error {
	switch name {
	case ".":
		return unix.EINVAL
	case "..":
		return unix.ENOTEMPTY
	}
	if err := v.change(); err != nil {
		return err
	}
	defer v.mu.Unlock()
	p, err := v.getDir(parent)
	if err != nil {
		return err
	}
	in := v.child(p, name)
	if in == nil {
		return unix.ENOENT
	}
	if !in.isDir() {
		return unix.ENOTDIR
	}
	if in.dir.count > 0 {
		return unix.ENOTEMPTY
	}
	v.dropDir(p, name, in, now())
	return nil
}

func (v *Volume) dropDir(parent *inode, name string, in *inode, t int64) {
	v.leave(parent, name, in, t)
	v.touch(in)
	in.ctime, in.nlink = t, 0
	in.parent, in.name = nil, ""
}

// below reports whether in is the folder top or lies below it.
func below(in, top *inode) bool {
	for ; in != nil; in = in.parent {
		if in == top {
			return true
		}
	}
	return false
}

// rename1 changes one name of an inode to another.
func (in *inode) rename1(from *inode, name string, to *inode, toName string) {
	if in.parent == from && in.name == name {
		in.parent, in.name = to, toName
		return
	}
	for i, m := range in.more {
		if m.parent == from && m.name == name {
			in.more[i] = nameRef{to, toName}
			return
		}
	}
}

// Rename moves an entry; flags are those of renameat2(2), RENAME_NOREPLACE and
// RENAME_EXCHANGE being known.
func (v *Volume) Rename(parent Ino, name string, toParent Ino, toName string, flags uint32) error {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 || flags == unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE {
		return unix.EINVAL
	}
	if err := validName(name); err != nil {
		return err
	}
	if err := validName(toName); err != nil {
		return err
	}
	if err := v.change(); err != nil {
		return err
	}
	defer v.mu.Unlock()
	p, err := v.getDir(parent)
	if err != nil {
		return err
	}
	q, err := v.getDir(toParent)
	if err != nil {
		return err
	}
	in := v.child(p, name)
	if in == nil || q.nlink == 0 {
		return unix.ENOENT
	}
	old := v.child(q, toName)
	t := now()
	if flags == unix.RENAME_EXCHANGE {
		if old == nil {
			return unix.ENOENT
		}
		if old == in {
			return nil
		}
		if in.isDir() && below(q, in) || old.isDir() && below(p, old) {
			return unix.EINVAL
		}
		v.touch(in)
		v.touch(old)
		v.leave(p, name, in, t)
		v.leave(q, toName, old, t)
		v.enter(q, toName, in, t)
		v.enter(p, name, old, t)
		in.rename1(p, name, q, toName)
		old.rename1(q, toName, p, name)
		in.ctime, old.ctime = t, t
		return nil
	}
	if old != nil && flags == unix.RENAME_NOREPLACE {
		return unix.EEXIST
	}
	if old == in {
		return nil // also for two names of one file
	}
	if in.isDir() && below(q, in) {
		return unix.EINVAL
	}
	if old != nil {
		switch {
		case in.isDir() && !old.isDir():
			return unix.ENOTDIR
		case !in.isDir() && old.isDir():
			return unix.EISDIR
		case old.isDir() && old.dir.count > 0:
			return unix.ENOTEMPTY
		case old.isDir():
			v.dropDir(q, toName, old, t)
		default:
			v.dropName(q, toName, old, t)
		}
	}
	v.touch(in)
	v.leave(p, name, in, t)
	v.enter(q, toName, in, t)
	in.rename1(p, name, q, toName)
	in.ctime = t
	return nil
}

// DirStream lists a folder. The listing is taken when it is read from cookie 0:
// what comes and goes later does not move what is still to be listed.
type DirStream struct {
	v      *Volume
	ino    Ino
	parent Ino
	pages  []*page
	taken  bool
}

// OpenDir opens a folder for listing.
func (v *Volume) OpenDir(ino Ino) (*DirStream, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if _, err := v.getDir(ino); err != nil {
		return nil, err
	}
	return &DirStream{v: v, ino: ino}, nil
}

// take remembers the pages of the folder. The run that may change them in place
// no longer may.
func (d *DirStream) take() error {
	d.v.mu.Lock()
	defer d.v.mu.Unlock()
	in, err := d.v.getDir(d.ino)
	if err != nil {
		return err
	}
	d.parent = d.ino
	if in.parent != nil {
		d.parent = in.parent.ino
	}
	d.pages = in.dir.pages
	in.dir.run = 0
	if d.v.run != nil {
		for _, p := range d.pages {
			if p.run == d.v.run.id {
				p.run = 0
			}
		}
	}
	d.taken = true
	return nil
}

// Cookies: 1 is behind ".", 2 behind "..", and dirCookie + page << 16 + entry in
// front of that entry.
const dirCookie = 1 << 8

// Read calls fn with the entries behind the one whose Next is cookie, "." and
// ".." first, until fn returns false (that entry counts as not read) or there
// are no more. A DirStream is read by one goroutine at a time.
func (d *DirStream) Read(cookie uint64, fn func(Dirent) bool) error {
	if cookie == 0 || !d.taken {
		if err := d.take(); err != nil {
			return err
		}
	}
	if cookie == 0 {
		if !fn(Dirent{Name: ".", Ino: d.ino, Type: unix.S_IFDIR, Next: 1}) {
			return nil
		}
		cookie = 1
	}
	if cookie == 1 {
		if !fn(Dirent{Name: "..", Ino: d.parent, Type: unix.S_IFDIR, Next: 2}) {
			return nil
		}
		cookie = 2
	}
	pi, i := uint64(0), uint64(0)
	if cookie >= dirCookie {
		pi, i = (cookie-dirCookie)>>16, (cookie-dirCookie)&0xffff
	}
	for ; pi < uint64(len(d.pages)); pi, i = pi+1, 0 {
		ents := d.pages[pi].ents
		for ; i < uint64(len(ents)); i++ {
			e := &ents[i]
			if !fn(Dirent{Name: e.name, Ino: e.n.ino, Type: uint32(e.n.mode) & unix.S_IFMT, Next: dirCookie + pi<<16 + i + 1}) {
				return nil
			}
		}
	}
	return nil
}

// Close ends the listing.
func (d *DirStream) Close() { d.pages = nil }

// Statfs tells about free space.
func (v *Volume) Statfs() (StatfsInfo, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(v.store.root, &st); err != nil {
		return StatfsInfo{}, err
	}
	v.mu.RLock()
	files := v.root.n.dir().entries
	v.mu.RUnlock()
	return StatfsInfo{
		BlockSize: uint64(st.Bsize), Blocks: st.Blocks, Free: st.Bfree, Available: st.Bavail,
		Files: files + st.Ffree, FreeFiles: st.Ffree, NameMax: 255,
	}, nil
}
