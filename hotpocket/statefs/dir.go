package statefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"evernode/internal/digest"

	"golang.org/x/sys/unix"
)

// Owner is the user and group that the contract's files belong to.
type Owner struct{ UID, GID int }

// Config says where a State lives.
type Config struct {
	// Dir is the node's contract_fs folder; it is made if missing.
	Dir string
	// Log gets warnings about what is put right.
	Log *slog.Logger
	// Confirmed is the newest version that the node's ledger records as agreed,
	// nil when it records none. A node may die between writing that ledger and
	// Commit; if what is on disk can be made to this version, it becomes the
	// agreed one.
	Confirmed *Version
	// Owner, when not nil, gets the initial files and everything fetched. It
	// needs privilege.
	Owner *Owner

	// failpoint, when not nil, is called between the steps that change the
	// disk; tests kill the process in it.
	failpoint func(step string)
}

// Dir is a State in plain folders: what changed is found by comparing change
// times, and the agreed version is kept as a second copy.
//
// There are two read-only copies ("sides") that share the inodes of equal
// files. Commit brings the one that nobody reads up to date, by links, and
// turns new views to it; the other one stays at the version before until the
// next Commit. So a read request sees one version from beginning to end, and
// peers find what they have begun to fetch.
type Dir struct {
	cfg  Config
	log  *slog.Logger
	lock *os.File

	// Open folders. They were opened before the sides were mounted read-only,
	// so writing through them works.
	work    int // mnt/rw
	state   int // mnt/rw/state
	objects int // store/objects: files of the agreed version that no side has yet
	tmp     *tmpFolder
	paths   paths

	scanner scanner
	// provenStart says that what an earlier process left is as it wrote it.
	provenStart bool
	mounted     bool // sides are protected by mounts and carry real modes

	// life is read-held by every operation that uses open folders, and held by
	// Close.
	life sync.RWMutex

	generation atomic.Uint64 // of object names
	lists      listCache
	// flushing counts the background work that makes objects durable.
	flushing sync.WaitGroup

	// mu guards what follows, and is never held while files are copied.
	mu      sync.Mutex
	agreed  version
	recent  []version // earlier agreed versions, oldest first
	working *node     // last scan of the working folder
	damaged bool
	run     *run
	staging *staging
	closed  bool
	sides   [2]*side
	current int // the side that new views get
	// settled is told when a side is no longer busy.
	settled *sync.Cond
	// pending names the files in objects that the agreed version needs and no
	// side has yet.
	pending map[content]string
	// asAgreed says that the working folder is known to hold the agreed version.
	asAgreed bool

	// settling serialises changes of sides, objects, pack and meta. It is
	// taken before mu.
	settling    sync.Mutex
	pack        *nodePack
	meta        *metaFile
	keptPatches []string // files that keep a patch.cfg until a side has it
}

// version is an agreed version at hand: its tree and the content of patch.cfg.
type version struct {
	Version
	tree  *node
	patch []byte
}

// side is one read-only copy.
type side struct {
	name  string
	top   int // the open folder mnt/ro.N
	state int // its state folder
	holds version
	refs  int  // open views and readers
	busy  bool // being changed

	// private is what is shown of the node's private files.
	privateMu sync.Mutex
	private   *node
}

type paths struct{ root, mnt, rw, state, patch, store string }

const patchName = "patch.cfg"

// keepRecent is how many earlier trees are kept for peers that are still
// fetching them. They share everything that is equal.
const keepRecent = 4

// OpenDir opens the state in cfg.Dir, takes over seed/ at the first start, and
// brings the working folder to the agreed version, whatever happened before.
// ctx bounds the opening only.
func OpenDir(ctx context.Context, cfg Config) (_ *Dir, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	root, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	d := &Dir{cfg: cfg, log: cfg.Log, work: -1, state: -1, objects: -1, tmp: &tmpFolder{fd: -1}}
	d.settled = sync.NewCond(&d.mu)
	mnt := filepath.Join(root, "mnt")
	d.paths = paths{
		root: root, mnt: mnt, rw: filepath.Join(mnt, "rw"), store: filepath.Join(root, "store"),
		state: filepath.Join(mnt, "rw", "state"), patch: filepath.Join(mnt, "rw", patchName),
	}
	defer func() {
		if err != nil {
			d.release()
			err = fmt.Errorf("open state in %s: %w", root, err)
		}
	}()
	if err := d.openFolders(); err != nil {
		return nil, err
	}
	meta, found, err := openMeta(filepath.Join(d.paths.store, "meta"))
	if err != nil {
		return nil, err
	}
	d.meta = meta
	if d.pack, err = openPack(filepath.Join(d.paths.store, "folders")); err != nil {
		return nil, err
	}
	if err := d.takeOverSeed(found); err != nil {
		return nil, err
	}
	if err := d.openWorking(); err != nil {
		return nil, err
	}
	exact, err := probeTimes(d.tmp.fd)
	if err != nil {
		return nil, fmt.Errorf("probe file times: %w", err)
	}
	d.scanner = scanner{log: d.log, tmp: d.tmp, exactTimes: exact, normalise: true}
	if err := d.openSides(); err != nil {
		return nil, err
	}
	boot := bootID()
	trusted := found && (meta.rec.clean || boot != "" && boot == meta.rec.boot)
	d.provenStart = trusted
	if err := d.recover(ctx, found, trusted); err != nil {
		return nil, err
	}
	d.meta.rec.boot, d.meta.rec.clean, d.meta.rec.mounted = boot, false, d.mounted
	if err := d.meta.write(); err != nil {
		return nil, err
	}
	// From here on what is on disk counts as unproven after a power failure;
	// that must be on disk before anything changes.
	if err := d.meta.f.Sync(); err != nil {
		return nil, err
	}
	if err := d.mountSides(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Dir) openFolders() error {
	for _, p := range []string{d.paths.rw, filepath.Join(d.paths.store, "objects"), filepath.Join(d.paths.store, "tmp")} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(d.paths.store, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(d.paths.store, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	d.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("the state is in use by another process: %w", err)
	}
	if err := unmountSides(d.paths.root); err != nil {
		return err
	}
	for _, o := range []struct {
		fd   *int
		path string
	}{{&d.work, d.paths.rw}, {&d.objects, filepath.Join(d.paths.store, "objects")}, {&d.tmp.fd, filepath.Join(d.paths.store, "tmp")}} {
		if *o.fd, err = openDir(unix.AT_FDCWD, o.path); err != nil {
			return fmt.Errorf("open folder %s: %w", o.path, err)
		}
	}
	list, err := names(d.tmp.fd, make([]byte, 4096))
	if err != nil {
		return err
	}
	for _, n := range list {
		if err := removeAt(d.tmp.fd, n); err != nil {
			return err
		}
	}
	return nil
}

// takeOverSeed moves what the operator put into seed/ to its place, once.
func (d *Dir) takeOverSeed(started bool) error {
	seed := filepath.Join(d.paths.root, "seed")
	list, err := os.ReadDir(seed)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read seed: %w", err)
	}
	if started {
		if len(list) > 0 {
			d.log.Warn("seed is ignored: this state was started before; remove everything in contract_fs to start anew", "seed", seed)
		}
		return nil
	}
	for _, e := range list {
		to := filepath.Join(d.paths.rw, e.Name())
		if _, err := os.Lstat(to); err == nil {
			d.log.Warn("not taken over from seed: the name exists already", "name", e.Name())
			continue
		}
		if err := os.Rename(filepath.Join(seed, e.Name()), to); err != nil {
			return fmt.Errorf("take over seed: %w", err)
		}
		d.step("seed moved")
		if d.cfg.Owner != nil {
			if err := chownAll(to, *d.cfg.Owner); err != nil {
				return fmt.Errorf("take over seed: %w", err)
			}
		}
	}
	return nil
}

func chownAll(path string, o Owner) error {
	return filepath.WalkDir(path, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, o.UID, o.GID)
	})
}

func (d *Dir) openWorking() error {
	err := unix.Mkdirat(d.work, "state", 0o755)
	switch {
	case err == nil:
		if err := os.Chmod(d.paths.state, 0o755); err != nil {
			return err
		}
		if o := d.cfg.Owner; o != nil {
			if err := os.Lchown(d.paths.state, o.UID, o.GID); err != nil {
				return err
			}
		}
	case !errors.Is(err, unix.EEXIST):
		return fmt.Errorf("make state folder: %w", err)
	}
	if o := d.cfg.Owner; o != nil {
		// The contract writes beside its state: patch.cfg, private files.
		if err := os.Lchown(d.paths.rw, o.UID, o.GID); err != nil {
			return err
		}
	}
	if d.state, err = openDir(d.work, "state"); err != nil {
		return fmt.Errorf("open state folder: %w", err)
	}
	return nil
}

func (d *Dir) openSides() error {
	for i, name := range sideNames {
		path := filepath.Join(d.paths.mnt, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if i == 0 {
			d.mounted = canMount(path)
			if !d.mounted && os.Geteuid() == 0 {
				d.log.Warn("cannot mount: read requests of a contract that runs as root could write to the agreed copy")
			}
		}
		s := &side{name: name, top: -1, state: -1}
		d.sides[i] = s
		var err error
		if s.top, err = openDir(unix.AT_FDCWD, path); err != nil {
			return fmt.Errorf("open folder %s: %w", path, err)
		}
		if err := writableDir(s.top); err != nil {
			return err
		}
		if err := unix.Mkdirat(s.top, "state", 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make %s/state: %w", path, err)
		}
		if s.state, err = openDir(s.top, "state"); err != nil {
			return fmt.Errorf("open %s/state: %w", path, err)
		}
	}
	return nil
}

func (d *Dir) mountSides() error {
	for _, s := range d.sides {
		for _, fd := range []int{s.top, s.state} {
			if o := d.cfg.Owner; o != nil {
				if err := unix.Fchown(fd, o.UID, o.GID); err != nil {
					return err
				}
			}
			if err := unix.Fchmod(fd, uint32(d.viewDirMode(0o755))); err != nil {
				return err
			}
		}
		if d.mounted {
			if err := mountReadOnly(filepath.Join(d.paths.mnt, s.name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// viewMode is the mode that a file has in a side. Without mounts the missing
// write permission is what protects it.
func (d *Dir) viewMode(mode uint16) uint16 {
	if d.mounted {
		return mode
	}
	return mode&^0o222 | 0o400
}

// viewDirMode is viewMode for folders.
func (d *Dir) viewDirMode(mode uint16) uint16 {
	if d.mounted {
		return mode
	}
	return mode&^0o222 | 0o500
}

// enter begins an operation that leave ends.
func (d *Dir) enter() error {
	d.life.RLock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		d.life.RUnlock()
		return os.ErrClosed
	}
	return nil
}

func (d *Dir) leave() { d.life.RUnlock() }

func (d *Dir) step(name string) {
	if d.cfg.failpoint != nil {
		d.cfg.failpoint(name)
	}
}

// Agreed implements State.
func (d *Dir) Agreed() Version {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.agreed.Version
}

// Damaged implements State.
func (d *Dir) Damaged() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.damaged
}

// Patch implements State.
func (d *Dir) Patch() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.agreed.patch
}

// SetPatch implements State.
func (d *Dir) SetPatch(ctx context.Context, content []byte) (digest.Hash, error) {
	if len(content) > MaxPatch {
		return digest.Hash{}, fmt.Errorf("patch.cfg of %d bytes, at most %d are allowed", len(content), MaxPatch)
	}
	if err := d.enter(); err != nil {
		return digest.Hash{}, fmt.Errorf("set patch.cfg: %w", err)
	}
	defer d.leave()
	d.settling.Lock()
	defer d.settling.Unlock()
	next, done, err := d.exclude()
	if err != nil {
		return digest.Hash{}, fmt.Errorf("set patch.cfg: %w", err)
	}
	defer done()
	if d.Damaged() {
		return digest.Hash{}, fmt.Errorf("set patch.cfg: %w", ErrDamaged)
	}
	h := HashPatch(content)
	if next.Patch == h {
		return h, nil
	}
	next.Patch, next.patch = h, append([]byte{}, content...)
	d.mu.Lock()
	wasAgreed := d.asAgreed
	d.asAgreed = false // until both places have it
	d.mu.Unlock()
	if err := d.writePatch(d.work, next.patch, 0o644); err != nil {
		return digest.Hash{}, err
	}
	d.step("working patch.cfg set")
	if err := d.adopt(ctx, next); err != nil {
		return digest.Hash{}, fmt.Errorf("set patch.cfg: %w", err)
	}
	d.mu.Lock()
	d.asAgreed = wasAgreed
	d.mu.Unlock()
	return h, nil
}

// exclude keeps runs from beginning until done is called, and returns the agreed
// version.
func (d *Dir) exclude() (v version, done func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run != nil {
		return v, nil, ErrBusy
	}
	r := &run{d: d}
	d.run = r
	return d.agreed, func() { d.finish(r) }, nil
}

// writePatch replaces patch.cfg in an open folder; nil content removes it.
func (d *Dir) writePatch(dir int, content []byte, mode uint16) error {
	if content == nil {
		if err := removeAt(dir, patchName); err != nil {
			return fmt.Errorf("remove patch.cfg: %w", err)
		}
		return nil
	}
	tmp := d.tmp.name()
	err := func() error {
		fd, err := unix.Openat(d.tmp.fd, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), tmp)
		defer f.Close()
		if _, err := f.Write(content); err != nil {
			return err
		}
		if o := d.cfg.Owner; o != nil {
			if err := f.Chown(o.UID, o.GID); err != nil {
				return err
			}
		}
		if err := unix.Fchmod(fd, uint32(mode)); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstatat(dir, patchName, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := removeAt(dir, patchName); err != nil {
				return err
			}
		}
		return unix.Renameat(d.tmp.fd, tmp, dir, patchName)
	}()
	if err != nil {
		return fmt.Errorf("write patch.cfg: %w", err)
	}
	return nil
}

// Close implements State. An open run is rolled back at the next start.
func (d *Dir) Close() error {
	d.life.Lock()
	defer d.life.Unlock()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	d.mu.Unlock()
	d.flushing.Wait()
	d.settling.Lock()
	defer d.settling.Unlock()
	defer d.release()
	if err := d.saveIndex(); err != nil {
		return fmt.Errorf("close state: %w", err)
	}
	d.step("index saved")
	if err := unix.Syncfs(d.work); err != nil {
		return fmt.Errorf("close state: flush: %w", err)
	}
	if !d.mounted {
		if err := Release(d.paths.root); err != nil {
			return fmt.Errorf("close state: %w", err)
		}
	}
	d.meta.rec.clean = true
	if err := d.meta.write(); err != nil {
		return fmt.Errorf("close state: %w", err)
	}
	if err := d.meta.f.Sync(); err != nil {
		return fmt.Errorf("close state: %w", err)
	}
	return nil
}

// saveIndex writes the signatures of the last scan, so that the next start
// need not read what has not changed. The caller holds settling.
func (d *Dir) saveIndex() error {
	d.mu.Lock()
	w := d.working
	d.mu.Unlock()
	if w == nil || w.Hash.IsZero() {
		return nil
	}
	if err := d.pack.add(w); err != nil {
		return err
	}
	return writeFileAtomic(filepath.Join(d.paths.store, "index"), encodeIndex(w), 0o600, false)
}

// release closes and unmounts everything.
func (d *Dir) release() {
	if d.mounted {
		if err := unmountSides(d.paths.root); err != nil {
			d.log.Warn("state stays mounted", "error", err)
		}
	}
	for _, s := range d.sides {
		if s != nil {
			closeFd(s.top)
			closeFd(s.state)
		}
	}
	for _, fd := range []int{d.work, d.state, d.objects, d.tmp.fd} {
		closeFd(fd)
	}
	if d.pack != nil {
		d.pack.close()
	}
	if d.meta != nil {
		d.meta.f.Close()
	}
	if d.lock != nil {
		d.lock.Close()
	}
}

func closeFd(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}
