package hotpocket

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"evernode/hotpocket/config"
	"evernode/hotpocket/consensus"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

const (
	// maxChangePage bounds an answer to kindChanges in bytes, unless a single
	// change is longer.
	maxChangePage = 1 << 20
	// maxChange bounds one encoded change: two headers, a certificate and two
	// versions of patch.cfg.
	maxChange     = 3<<20 + 2*statefs.MaxPatch
	changeVersion = 1
	changesTag    = "evernode hotpocket changes of the members"
)

// change is a ledger that put another UNL or quorum in force, with all that
// somebody needs who knows the members before it, and nothing else, to verify
// it: the signatures of those members. From change to change a node can so
// follow who the members are without the ledgers between.
type change struct {
	// before is the header of the ledger before. It names the patch.cfg under
	// which ledger closed, and is bound to it by its hash.
	before consensus.Header
	ledger consensus.Ledger
	// old and next are the patch.cfg before and after.
	old, next []byte
}

// sameMembers reports whether certificates of the one are certificates of the
// other.
func sameMembers(a, b consensus.Params) bool {
	return slices.Equal(a.Members, b.Members) && a.Quorum() == b.Quorum()
}

// encode returns the form in which changes are kept and sent: a version byte,
// then before, ledger, old and next, each with its length.
func (c *change) encode() []byte {
	b := wire.AppendU8(nil, changeVersion)
	b = wire.AppendBytes(b, c.before.Append(nil))
	b = wire.AppendBytes(b, consensus.AppendLedger(nil, &c.ledger.Header, &c.ledger.Certificate))
	b = wire.AppendBytes(b, c.old)
	return wire.AppendBytes(b, c.next)
}

// decodeChange reads what encode wrote. It verifies nothing.
func decodeChange(b []byte) (c change, err error) {
	r := wire.NewReader(b)
	if v := r.U8(); v != changeVersion && r.Err() == nil {
		r.Fail(fmt.Errorf("version is %d, want %d", v, changeVersion))
	}
	before, ledger := r.View(len(b)), r.View(len(b))
	c.old, c.next = r.Bytes(statefs.MaxPatch), r.Bytes(statefs.MaxPatch)
	err = r.Close()
	if err == nil {
		c.before, err = consensus.DecodeHeader(before)
	}
	if err == nil {
		c.ledger.Header, c.ledger.Certificate, err = consensus.DecodeLedger(ledger)
	}
	if err != nil {
		return change{}, fmt.Errorf("change of the members: %w", err)
	}
	return c, nil
}

// verify checks that the parts belong together and that the members before the
// change have signed it. It returns the parameters before and after; whether
// those before are the right ones the caller has to know.
func (c *change) verify(v consensus.Verifier, base *config.Config) (old, next consensus.Params, err error) {
	h := &c.ledger.Header
	defer func() {
		if err != nil {
			err = fmt.Errorf("change of the members by ledger %d: %w", h.Height, err)
		}
	}()
	switch {
	case c.before.Height == 0 || c.before.Height+1 != h.Height || c.before.Hash() != h.Prev:
		return old, next, fmt.Errorf("it does not follow the given ledger %d", c.before.Height)
	case statefs.HashPatch(c.old) != c.before.Result.Patch || statefs.HashPatch(c.next) != h.Result.Patch:
		return old, next, errors.New("another patch.cfg than the ledgers name")
	}
	if old, err = patchParameters(base, c.old); err != nil {
		return old, next, err
	}
	if next, err = patchParameters(base, c.next); err != nil {
		return old, next, err
	}
	if sameMembers(old, next) {
		return old, next, errors.New("nothing changes")
	}
	return old, next, c.ledger.Certificate.Verify(v, old, h)
}

// patchParameters are what consensus takes from a patch.cfg.
func patchParameters(base *config.Config, text []byte) (consensus.Params, error) {
	p, err := config.ParsePatch(text)
	if err != nil {
		return consensus.Params{}, fmt.Errorf("patch.cfg: %w", err)
	}
	params := parameters(base.Apply(p))
	return params, params.Validate()
}

// changes keeps all changes of the members since the first ledger, a file for
// each, for ever: however little history is kept, a node that was away for long
// can then verify where the chain is now, and newcomers can hand it on. They cost
// a few KiB each.
type changes struct {
	dir string
	log *slog.Logger

	mu   sync.Mutex
	kept []keptChange // by height
}

type keptChange struct {
	height uint64
	ledger digest.Hash
	chain  digest.Hash // of all ledgers up to this one
}

// openChanges reads what is kept up to the last ledger. What a crash left of
// later ones goes.
func openChanges(dir string, last uint64, log *slog.Logger) (*changes, error) {
	c := &changes{dir: dir, log: log}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of the changes of the members: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("folder of the changes of the members: %w", err)
	}
	for _, f := range files {
		height, err := strconv.ParseUint(f.Name(), 10, 64)
		if err != nil || height > last {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return nil, fmt.Errorf("remove what is no change of the members: %w", err)
			}
			continue
		}
		x, err := c.read(height)
		if err == nil && x.ledger.Header.Height != height {
			err = fmt.Errorf("it is of ledger %d", x.ledger.Header.Height)
		}
		if err != nil {
			// Others have it; this node has been past it.
			log.Error("a kept change of the members is damaged", "ledger", height, "err", err)
			continue
		}
		c.insert(height, x.ledger.Header.Hash())
	}
	return c, nil
}

func (c *changes) file(height uint64) string {
	return filepath.Join(c.dir, fmt.Sprintf("%020d", height))
}

func (c *changes) read(height uint64) (change, error) {
	b, err := os.ReadFile(c.file(height))
	if err != nil {
		return change{}, err
	}
	return decodeChange(b)
}

// insert notes a change in its place. The caller holds mu or is alone.
func (c *changes) insert(height uint64, ledger digest.Hash) {
	i, found := c.find(height)
	if !found {
		c.kept = slices.Insert(c.kept, i, keptChange{})
	}
	c.kept[i] = keptChange{height: height, ledger: ledger}
	for ; i < len(c.kept); i++ {
		var prev digest.Hash
		if i > 0 {
			prev = c.kept[i-1].chain
		}
		c.kept[i].chain = digest.Tagged(changesTag, prev[:], c.kept[i].ledger[:])
	}
}

func (c *changes) find(height uint64) (int, bool) {
	return slices.BinarySearchFunc(c.kept, height, func(k keptChange, h uint64) int { return cmp.Compare(k.height, h) })
}

// add keeps a verified change; when it returns it is on disk.
func (c *changes) add(x *change) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	height, hash := x.ledger.Header.Height, x.ledger.Header.Hash()
	if i, found := c.find(height); found && c.kept[i].ledger == hash {
		return nil
	}
	if err := config.WriteFile(c.file(height), x.encode(), 0o600); err != nil {
		return fmt.Errorf("keep the change of the members by ledger %d: %w", height, err)
	}
	c.insert(height, hash)
	return nil
}

// has reports whether the change by a ledger is kept.
func (c *changes) has(height uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, found := c.find(height)
	return found
}

// upTo returns the hash over all changes up to a ledger, zero for none.
func (c *changes) upTo(height uint64) (chain digest.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, found := c.find(height)
	if found {
		i++
	}
	if i == 0 {
		return digest.Hash{}
	}
	return c.kept[i-1].chain
}

// page returns encoded changes, each with its length, by ledgers after one and
// up to another.
func (c *changes) page(after, last uint64) ([]byte, error) {
	c.mu.Lock()
	i, found := c.find(after)
	if found {
		i++
	}
	rest := slices.Clone(c.kept[i:])
	c.mu.Unlock()
	var out []byte
	for _, k := range rest {
		if k.height > last {
			break
		}
		b, err := os.ReadFile(c.file(k.height))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read a change of the members: %w", err)
		}
		if len(out) > 0 && len(out)+len(b) > maxChangePage {
			break
		}
		out = wire.AppendBytes(out, b)
	}
	return out, nil
}

// decodeChanges reads what page wrote.
func decodeChanges(b []byte) ([]change, error) {
	r := wire.NewReader(b)
	var out []change
	for r.Len() > 0 {
		one := r.View(maxChange)
		if r.Err() != nil {
			return nil, fmt.Errorf("changes of the members: %w", r.Err())
		}
		c, err := decodeChange(one)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// serveChanges answers with the changes after a ledger.
func (n *node) serveChanges(payload []byte) ([]byte, error) {
	r := wire.NewReader(payload)
	after := r.U64()
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("request for changes of the members: %w", err)
	}
	return n.changes.page(after, n.shown.Load())
}

// noteChange keeps a ledger that changes who the members are, together with the
// one before it.
func (n *node) noteChange(before *consensus.Header, x consensus.Ledger) error {
	h := &x.Header
	if before.Height == 0 || before.Result.Patch.IsZero() || before.Result.Patch == h.Result.Patch || n.changes.has(h.Height) {
		return nil
	}
	if before.Height+1 != h.Height {
		return nil // the one before is not known here
	}
	c := &change{before: *before, ledger: x, old: n.patches.get(before.Result.Patch), next: n.patches.get(h.Result.Patch)}
	if c.old == nil || c.next == nil {
		n.log.Warn("a change of the patch.cfg cannot be kept for others, for want of its content", "ledger", h.Height)
		return nil
	}
	old, err := patchParameters(n.conf.Load(), c.old)
	if err != nil {
		return err
	}
	next, err := patchParameters(n.conf.Load(), c.next)
	if err != nil {
		return err
	}
	if sameMembers(old, next) {
		return nil
	}
	if err := n.changes.add(c); err != nil {
		return err
	}
	n.log.Info("the members have changed", "ledger", h.Height, "before", len(old.Members), "now", len(next.Members), "must_agree", next.Quorum())
	return nil
}

// recallChange makes up for a crash right after the last ledger.
func (n *node) recallChange(last *consensus.Header, cert consensus.Certificate) error {
	if last.Height < 2 || last.Result.Patch.IsZero() {
		return nil
	}
	r, ok, err := n.store.Get(last.Height - 1)
	if err != nil || !ok {
		return err
	}
	before, _, err := consensus.DecodeLedger(r.Body)
	if err != nil {
		return fmt.Errorf("ledger %d: %w", r.Seq, err)
	}
	return n.noteChange(&before, consensus.Ledger{Header: *last, Certificate: cert})
}
