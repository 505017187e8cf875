package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"

	"evernode/hotpocket/statefs"
	"evernode/internal/wire"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// loader builds a version out of the log.
type loader struct {
	dirs map[Ino]map[string]*node
	top  *node

	pending [][]byte   // recDirs since the last end or commit
	ended   *endRecord // what they belong to
	agreed  *commitRecord
	commit  int64 // where the commit of agreed ends
	next    Ino   // the last number given out
	boot    string
	clean   bool
	durable int64 // offset up to which everything is durable
}

// record takes one record of the log.
func (l *loader) record(kind byte, payload []byte, end int64) error {
	l.clean = kind == recClean
	switch kind {
	case recHead:
		if string(payload) != logMagic {
			return fmt.Errorf("log begins with %q", payload)
		}
	case recDirs:
		if l.ended != nil { // of a run that was rolled back
			l.pending, l.ended = nil, nil
		}
		l.pending = append(l.pending, slices.Clone(payload))
	case recEnd:
		if l.ended != nil {
			l.pending = nil
		}
		e, err := decodeEnd(payload)
		if err != nil {
			return err
		}
		l.ended, l.next = e, max(l.next, e.next)
	case recUndone:
		l.pending, l.ended = nil, nil
	case recCommit:
		c, err := decodeCommit(payload)
		if err != nil {
			return err
		}
		if c.ended {
			if l.ended == nil || l.ended.root != c.v.Root {
				return fmt.Errorf("version %v is agreed without the run that led to it", c.v)
			}
			if err := l.apply(); err != nil {
				return err
			}
		}
		l.agreed, l.commit = c, end
	case recDurable:
		r := wire.NewReader(payload)
		l.durable = int64(r.U64())
		return r.Close()
	case recBoot:
		l.boot = string(payload)
	case recClean:
	default:
		return fmt.Errorf("record of unknown kind %q", kind)
	}
	return nil
}

// apply makes the pending changes.
func (l *loader) apply() error {
	if l.ended.full || l.dirs == nil {
		l.dirs = make(map[Ino]map[string]*node)
	}
	for _, p := range l.pending {
		if err := l.changes(p); err != nil {
			return err
		}
	}
	l.top = l.ended.top
	l.pending, l.ended = nil, nil
	return nil
}

func (l *loader) changes(p []byte) error {
	r := wire.NewReader(p)
	for r.Len() > 0 && r.Err() == nil {
		ino, whole := Ino(r.U64()), r.Bool()
		d := l.dirs[ino]
		if d == nil || whole {
			d = make(map[string]*node)
			l.dirs[ino] = d
		}
		for range r.Count(maxRecord, 6) {
			name := r.String(255)
			n := readNode(r)
			if r.Err() != nil {
				break
			}
			if n == nil {
				delete(d, name)
			} else {
				d[name] = n
			}
		}
	}
	return r.Close()
}

// build returns the root of the agreed version and checks that it has the hash
// that it should have.
func (l *loader) build() (*node, error) {
	if l.agreed == nil || l.top == nil {
		return nil, errors.New("the log has no agreed version")
	}
	top := *l.top
	seen := make(map[Ino]bool)
	if err := l.folder(&top, seen, 0); err != nil {
		return nil, err
	}
	if top.hash != l.agreed.v.Root {
		return nil, fmt.Errorf("the tree on disk has root %s, not %s", top.hash.Short(), l.agreed.v.Root.Short())
	}
	return &top, nil
}

func (l *loader) folder(n *node, seen map[Ino]bool, depth int) error {
	if depth > statefs.MaxDepth || seen[n.ino] {
		return fmt.Errorf("folder %d is nested too deep or twice", n.ino)
	}
	seen[n.ino] = true
	names := l.dirs[n.ino]
	p := &page{ents: make([]ent, 0, len(names))}
	subdirs := 0
	for name, k := range names {
		if err := validName(name); err != nil {
			return fmt.Errorf("name %q: %w", name, err)
		}
		if k.kind() == statefs.KindDir {
			c := *k
			k = &c
			if err := l.folder(k, seen, depth+1); err != nil {
				return err
			}
			subdirs++
		}
		p.ents = append(p.ents, ent{name, k})
	}
	sort.Slice(p.ents, func(i, j int) bool { return p.ents[i].name < p.ents[j].name })
	return sealFolder(n, []*page{p}, subdirs)
}

// sealFolder makes a folder of sorted entries whose nodes are complete.
func sealFolder(n *node, pages []*page, subdirs int) error {
	d, err := recut(pages, nil)
	if err != nil {
		return err
	}
	d.subdirs = subdirs
	enc, err := d.encode(nil)
	if err != nil {
		return err
	}
	n.body, n.hash = d, statefs.HashDir(enc)
	return nil
}

// eachFile calls fn with every file below n.
func eachFile(n *node, path string, fn func(path string, n *node) error) error {
	return n.dir().each(func(name string, k *node) error {
		switch k.kind() {
		case statefs.KindDir:
			return eachFile(k, join(path, name), fn)
		case statefs.KindFile:
			return fn(join(path, name), k)
		}
		return nil
	})
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// recover brings the volume to its agreed version.
func (v *Volume) recover(ctx context.Context) error {
	nums, err := logNumbers(v.cfg.Dir)
	if err != nil {
		return err
	}
	if len(nums) == 0 {
		return v.newVolume(ctx, 1)
	}
	num := slices.Max(nums)
	f, err := os.OpenFile(logPath(v.cfg.Dir, num), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	l := &loader{}
	size, check, err := readLog(f, l.record)
	v.tlog = &treeLog{dir: v.cfg.Dir, num: num, f: f, size: size, check: check, base: size}
	if err == nil && l.agreed == nil {
		err = errors.New("it does not begin with a version")
	}
	if err != nil {
		// Nothing is known, not even which version it was.
		v.log.Error("the log of the state is damaged", "error", err)
		v.tlog.f.Close()
		v.tlog, v.damaged = nil, true
		v.cfg.Import = ""
		return v.newVolume(ctx, num+1)
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	trusted := l.clean || l.boot != "" && l.boot == v.boot
	adopt, err := v.confirmed(l)
	if err != nil {
		return err
	}
	root, err := v.prove(ctx, l, trusted)
	if err != nil && adopt != nil {
		v.log.Warn("the run that the ledger confirmed is not complete on disk", "error", err)
		if l, err = v.reload(f, size); err != nil {
			return fmt.Errorf("log of the state: %w", err)
		}
		adopt = nil
		root, err = v.prove(ctx, l, trusted)
	}
	if err != nil && l.commit > l.durable && !trusted {
		v.log.Warn("the newest version of the state is not complete on disk", "seq", l.agreed.v.Seq, "root", l.agreed.v.Root.Short(), "error", err)
		old, e := v.reload(f, l.durable)
		if e == nil {
			if r, e := v.prove(ctx, old, false); e == nil {
				v.log.Warn("the state is that of an earlier version; the newer one is lost", "seq", old.agreed.v.Seq)
				l, root, err, adopt = old, r, nil, nil
				// Nothing after it may count at the next start.
				if e := v.forgetAfter(l); e != nil {
					return e
				}
			}
		}
	}
	v.nextIno.Store(uint64(max(l.next, Root)))
	ver := &version{Version: l.agreed.v, patch: l.agreed.patch, root: root, durable: true}
	if err != nil {
		v.log.Error("the agreed state is not complete on disk and has to be fetched", "seq", l.agreed.v.Seq, "root", l.agreed.v.Root.Short(), "error", err)
		v.damaged = true
		if root, err = v.salvage(ctx, l); err != nil {
			return err
		}
		ver.root = root
	}
	if err := v.openStage(ver.root, l.clean || trusted); err != nil {
		return err
	}
	if err := v.collect(ver.root); err != nil {
		return err
	}
	v.start(ver)
	if adopt != nil && !v.damaged {
		c := commitRecord{ended: adopt.ended, v: adopt.v, patch: adopt.patch}
		if _, err := v.tlog.append(func(b *batch) { b.add(recCommit, c.encode()) }); err != nil {
			return err
		}
	}
	if !l.clean && !v.damaged {
		v.flush.all = true
		return v.flushOnce()
	}
	return nil
}

// start makes a version the first one of this process.
func (v *Volume) start(ver *version) {
	v.became(ver)
	v.root = &inode{ino: Root}
	v.root.reset(ver.root)
	v.live = map[Ino]*inode{Root: v.root}
}

// confirmed finds out whether the version that the ledger confirmed is at hand
// and not yet the agreed one, and makes it that in the loader.
func (v *Volume) confirmed(l *loader) (*commitRecord, error) {
	c := v.cfg.Confirmed
	if c == nil || *c == l.agreed.v || c.Seq < l.agreed.v.Seq {
		return nil, nil
	}
	var patch []byte
	if !c.Patch.IsZero() {
		for _, p := range append(slices.Clone(v.cfg.Patches), l.agreed.patch) {
			if p != nil && statefs.HashPatch(p) == c.Patch {
				patch = append([]byte{}, p...)
				break
			}
		}
		if patch == nil {
			return nil, nil
		}
	}
	rec := &commitRecord{v: *c, patch: patch}
	switch {
	case l.ended != nil && l.ended.seq == c.Seq && l.ended.root == c.Root:
		rec.ended = true
		if err := l.apply(); err != nil {
			return nil, err
		}
	case c.Root != l.agreed.v.Root:
		return nil, nil
	}
	v.log.Warn("the last run is taken over: the ledger confirmed it", "seq", c.Seq, "root", c.Root.Short())
	l.agreed = rec
	return rec, nil
}

// reload reads the log up to an offset.
func (v *Volume) reload(f *os.File, upTo int64) (*loader, error) {
	l := &loader{}
	_, _, err := readLog(f, func(kind byte, payload []byte, end int64) error {
		if end > upTo {
			return nil
		}
		return l.record(kind, payload, end)
	})
	if err == nil && l.agreed == nil {
		err = errors.New("the log has no durable version")
	}
	return l, err
}

// forgetAfter writes a new log with nothing but the loader's version.
func (v *Volume) forgetAfter(l *loader) error {
	root, err := l.build()
	if err != nil {
		return err
	}
	nl, err := newLog(v.cfg.Dir, v.tlog.num+1, &version{Version: l.agreed.v, patch: l.agreed.patch, root: root}, l.next)
	if err != nil {
		return err
	}
	if err := nl.rename(); err != nil {
		nl.f.Close()
		return err
	}
	v.tlog.f.Close()
	v.tlog = nl
	return nil
}

// prove builds the version and makes sure that its contents are on disk. After a
// stop that was not clean, every object is looked at; what does not look as it
// did when it was hashed, or what a power failure may have kept from the disk, is
// hashed again.
func (v *Volume) prove(ctx context.Context, l *loader, trusted bool) (*node, error) {
	root, err := l.build()
	if err != nil {
		return nil, err
	}
	if err := v.loadLayers(root); err != nil {
		return root, err
	}
	if l.clean {
		return root, nil
	}
	var files []*node
	var paths []string
	eachFile(root, "", func(path string, n *node) error {
		if n.size > 0 {
			files, paths = append(files, n), append(paths, path)
		}
		return nil
	})
	var rehashed atomic.Int64
	workers := runtime.GOMAXPROCS(0)
	g, gctx := errgroup.WithContext(ctx)
	for w := range workers {
		g.Go(func() error {
			for i := w; i < len(files); i += workers {
				if err := gctx.Err(); err != nil {
					return err
				}
				n := files[i]
				if packed(n.obj) {
					err := v.holds(n.obj, n.size)
					if err == nil && !trusted {
						rehashed.Add(1)
						err = v.proveFile(gctx, n)
					}
					if err != nil {
						return fmt.Errorf("%s: %w", paths[i], err)
					}
					continue
				}
				sig, _, err := v.signature(n.obj, n.layers())
				if err != nil {
					return fmt.Errorf("%s: %w", paths[i], err)
				}
				if sig == n.sig {
					continue
				}
				rehashed.Add(1)
				if err := v.proveFile(gctx, n); err != nil {
					return fmt.Errorf("%s: %w", paths[i], err)
				}
				n.sig = sig // nobody else has the node yet
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return root, err
	}
	if n := rehashed.Load(); n > 0 {
		v.log.Info("files were hashed again, because they do not look as when they were hashed", "files", n)
	}
	return root, nil
}

func (v *Volume) proveFile(ctx context.Context, n *node) error {
	c, err := v.openContent(n.obj, n.layers(), n.size)
	if err != nil {
		return err
	}
	defer c.close()
	h, _, err := statefs.HashContent(ctx, c, n.size, nil)
	if err == nil && h != n.hash {
		err = fmt.Errorf("content has hash %s, not %s", h.Short(), n.hash.Short())
	}
	return err
}

// loadLayers reads which blocks the layers of large files hold.
func (v *Volume) loadLayers(root *node) error {
	var folds []*node
	err := eachFile(root, "", func(path string, n *node) error {
		for _, l := range n.layers() {
			sd, err := v.store.readSide(l.obj)
			if err != nil {
				return fmt.Errorf("blocks of %s: %w", path, err)
			}
			if sd.limit != l.limit {
				return fmt.Errorf("blocks of %s: layer shows %d bytes, not %d", path, sd.limit, l.limit)
			}
			l.bits = sd.bits
		}
		if len(n.layers()) > 0 {
			folds = append(folds, n)
		}
		return nil
	})
	v.fold.add(folds)
	return err
}

// salvage returns what there is of a damaged version: files whose content is not
// what it should be are left out.
func (v *Volume) salvage(ctx context.Context, l *loader) (*node, error) {
	root, err := l.build()
	if err != nil {
		root = &node{ino: Root, mode: unix.S_IFDIR | 0o755}
		return root, sealFolder(root, nil, 0)
	}
	return v.salvageDir(ctx, root)
}

func (v *Volume) salvageDir(ctx context.Context, n *node) (*node, error) {
	c := *n
	p := &page{}
	subdirs := 0
	err := n.dir().each(func(name string, k *node) error {
		switch k.kind() {
		case statefs.KindDir:
			sub, err := v.salvageDir(ctx, k)
			if err != nil {
				return err
			}
			k = sub
			subdirs++
		case statefs.KindFile:
			lay := k.layers()
			for _, l := range lay {
				sd, err := v.store.readSide(l.obj)
				if err != nil {
					return nil
				}
				l.bits = sd.bits
			}
			if err := v.proveFile(ctx, k); err != nil {
				return ctx.Err()
			}
		}
		p.ents = append(p.ents, ent{name, k})
		return nil
	})
	if err != nil {
		return nil, err
	}
	pages := []*page{p}
	if len(p.ents) == 0 {
		pages = nil
	}
	return &c, sealFolder(&c, pages, subdirs)
}

// collect removes objects that no version needs.
func (v *Volume) collect(root *node) error {
	used := make(map[uint64]bool)
	eachFile(root, "", func(_ string, n *node) error {
		n.objects(func(id, size uint64) { used[objectOf(id)] = true })
		return nil
	})
	for id := range v.stage.objects() {
		used[objectOf(id)] = true
	}
	last, removed := uint64(0), 0
	err := v.store.list(func(shard int, name string) error {
		id, err := strconv.ParseUint(strings.TrimSuffix(name, sideSuffix), 16, 64)
		if err == nil {
			last = max(last, id)
			if used[id] {
				return nil
			}
		}
		removed++
		v.step("before a left-over is removed")
		return unix.Unlinkat(v.store.shards[shard], name, 0)
	})
	if err != nil {
		return fmt.Errorf("look through the objects: %w", err)
	}
	if removed > 0 {
		v.log.Info("removed what an unfinished run left", "objects", removed)
	}
	v.store.next.Store(last)
	// What is in packs is accounted for.
	err = eachFile(root, "", func(path string, n *node) error {
		if err := v.keepPacked(n.obj, n.size); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	})
	for _, f := range v.stage.files {
		if err == nil {
			err = v.keepPacked(f.obj, f.size)
		}
	}
	return err
}

// newVolume makes a new volume, whose log gets the given number.
func (v *Volume) newVolume(ctx context.Context, num uint64) error {
	if err := v.openStage(&node{body: &dirver{}}, false); err != nil {
		return err
	}
	if err := v.collect(&node{body: &dirver{}}); err != nil {
		return err
	}
	root := &node{ino: Root, mode: unix.S_IFDIR | 0o755, mtime: now(), ctime: now(), atime: now()}
	if err := sealFolder(root, nil, 0); err != nil {
		return err
	}
	v.nextIno.Store(uint64(Root))
	ver := &version{Version: statefs.Version{Root: root.hash}, root: root, durable: true}
	if v.cfg.Import != "" {
		v.start(ver)
		imported, err := v.importFolder(ctx)
		if err != nil {
			return fmt.Errorf("take over %s: %w", v.cfg.Import, err)
		}
		v.agreed = nil
		ver = imported
	}
	l, err := newLog(v.cfg.Dir, num, ver, Ino(v.nextIno.Load()))
	if err != nil {
		return err
	}
	if err := unix.Syncfs(v.store.root); err != nil {
		return err
	}
	v.step("before the first log")
	if err := l.rename(); err != nil {
		return err
	}
	v.tlog = l
	if v.root == nil {
		v.start(ver)
	} else {
		v.became(ver)
	}
	return nil
}
