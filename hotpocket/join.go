package hotpocket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/consensus"
	"evernode/hotpocket/key"
	"evernode/hotpocket/ledger"
	"evernode/hotpocket/mesh"
	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

const (
	// seekMin and seekMax bound the pause before a newcomer asks again.
	seekMin, seekMax = 50 * time.Millisecond, 2 * time.Second
	// seekSettle is for how long a newcomer goes on after a refusal, since
	// others whom it hears of meanwhile may know better.
	seekSettle = 3 * time.Second
	// seekSpeak is after how long, and how often, it says what it lacks.
	seekSpeak = 10 * time.Second
	// maxAsked bounds the peers that are asked for the same thing.
	maxAsked = 8
	// maxChangeBytes bounds what a newcomer takes of the changes of the members.
	maxChangeBytes = 64 << 20
)

// joins reports whether a node with a configuration and without ledgers is a
// newcomer to a chain that others have begun: it is not in its own UNL. That UNL
// is then no agreed one but whom the operator trusts, one key at least.
func joins(conf *config.Config) bool {
	return !slices.Contains(conf.Contract.UNL, conf.Node.PublicKey)
}

// RefusedError says that a node cannot join with what it was told, and that
// trying again will not help.
type RefusedError struct{ Reason string }

// Error implements error.
func (e *RefusedError) Error() string { return e.Reason }

func refused(format string, args ...any) error {
	return &RefusedError{fmt.Sprintf(format, args...)}
}

// anchor is where a newcomer begins: a closed ledger that the members it trusts
// have vouched for.
type anchor struct {
	tip
	patch   []byte // in force after the ledger
	params  consensus.Params
	by      []key.Public // who has vouched for it
	changes []change     // all of the members so far
}

// seeker finds the anchor. It knows a contract id, some addresses of peers, and
// the public keys of trusted members; everything else it is told by peers whom it
// does not trust, and verifies.
//
// A trusted member signs, on a challenge, the height and hash of a ledger that
// has closed at it: so the ledger is of its chain and not of the past. The ledger
// names the patch.cfg in force after it, hence the UNL, in which the member has
// to be; the ledger before it names the one under which it closed, and q members
// of that UNL must have signed it. Of several trusted keys more than half have
// to vouch for the same ledger.
type seeker struct {
	asker
	chain    digest.Hash
	base     *config.Config // as the operator wrote it
	verifier consensus.Verifier
}

// find looks for the anchor until it has it, ctx ends, or the answers leave no
// hope. Its error is then a *RefusedError.
func (s *seeker) find(ctx context.Context) (*anchor, error) {
	s.log.Info("this node is not in its own UNL, so it joins the chain of those who are",
		"contract", s.base.Contract.ID, "trusted", len(s.base.Contract.UNL), "must_vouch", s.need(), "peers", strings.Join(s.base.Mesh.KnownPeers, " "))
	began, spoke := time.Now(), time.Now()
	for wait := seekMin; ; wait = min(2*wait, seekMax) {
		a, err := s.try(ctx)
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w; %w", ctx.Err(), err)
		}
		var no *RefusedError
		if errors.As(err, &no) && time.Since(began) >= seekSettle {
			return nil, err
		}
		if time.Since(spoke) >= seekSpeak {
			spoke = time.Now()
			s.log.Warn("the chain cannot be joined yet", "reason", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w; %w", ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

// need is how many of the trusted members have to vouch.
func (s *seeker) need() int { return len(s.base.Contract.UNL)/2 + 1 }

func (s *seeker) try(ctx context.Context) (*anchor, error) {
	if len(s.mesh.Peers()) == 0 {
		return nil, s.nobody()
	}
	var first attestation
	var by []key.Public
	var problems []string
	private := false
	for _, member := range s.base.Contract.UNL {
		a, err := s.attest(ctx, member, first.height)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		switch {
		case err != nil:
			var remote *mesh.RemoteError
			private = private || errors.As(err, &remote) && remote.Text == ErrPrivate.Error()
			problems = append(problems, fmt.Sprintf("member %s: %v", member, err))
			continue
		case len(by) == 0:
			first = a
		case a.ledger != first.ledger:
			return nil, refused("the trusted members %s and %s vouch for different ledgers %d, %s and %s: one of them lies or is on a fork",
				by[0], member, a.height, first.ledger, a.ledger)
		}
		if by = append(by, member); len(by) == s.need() {
			break
		}
	}
	if len(by) < s.need() && private {
		return nil, fmt.Errorf("%w; this node's key %s has to be put into the UNL by the contract first", ErrPrivate, s.base.Node.PublicKey)
	}
	if len(by) < s.need() {
		return nil, s.explain(ctx, by, problems)
	}
	return s.anchor(ctx, first, by)
}

// nobody says why no peer is connected.
func (s *seeker) nobody() error {
	all := s.mesh.Unreached()
	if len(all) == 0 {
		return refused("no peer is known: mesh.known_peers in hp.cfg needs the address of at least one node of contract %s", s.base.Contract.ID)
	}
	var why []string
	hopeless := true
	for _, u := range all {
		reason := u.Reason
		if reason == "" {
			reason = "no answer yet"
		}
		why = append(why, fmt.Sprintf("%s: %s", u.Address, reason))
		hopeless = hopeless && u.Final
	}
	text := fmt.Sprintf("no peer of contract %s can be reached (%s)", s.base.Contract.ID, strings.Join(why, "; "))
	if hopeless {
		return refused("%s", text)
	}
	return errors.New(text)
}

// attest gets a member's attestation, from itself or through another peer.
func (s *seeker) attest(ctx context.Context, member key.Public, height uint64) (attestation, error) {
	c, err := newChallenge()
	if err != nil {
		return attestation{}, err
	}
	q := attestRequest{member: member, challenge: c, height: height}
	var a attestation
	use := func(b []byte) (err error) {
		if a, err = decodeAttestation(b); err != nil {
			return err
		}
		if !s.verifier.Verify(member, a.signed(s.chain, c, member), a.sig[:]) {
			return fmt.Errorf("a word of %s with a wrong signature", member.Short())
		}
		if a.height == 0 || height != 0 && a.height != height {
			return fmt.Errorf("%s vouches for ledger %d instead of %d", member.Short(), a.height, height)
		}
		return nil
	}
	peers := s.peersFrom([]key.Public{member})
	direct := slices.ContainsFunc(s.mesh.Peers(), isPeer(member))
	if direct {
		// Nobody can say more about it than itself.
		peers = []key.Public{member}
	}
	err = s.requestOf(ctx, peers[:min(len(peers), maxAsked)], kindAttest, q.encode(), use)
	if err != nil && !direct {
		err = fmt.Errorf("it is not connected, and peers do not have its word: %w", err)
	}
	return a, err
}

// explain says why too few have vouched. When all who answer agree that the
// trusted keys are not of members, that is a refusal.
func (s *seeker) explain(ctx context.Context, by []key.Public, problems []string) error {
	told := make(map[string]int)
	peers := s.peersFrom(nil)
	for _, p := range peers[:min(len(peers), maxAsked)] {
		members, err := s.claimed(ctx, p)
		if err != nil {
			continue
		}
		in := 0
		var out []string
		for _, k := range s.base.Contract.UNL {
			if slices.Contains(members, k) {
				in++
			} else {
				out = append(out, k.String())
			}
		}
		if in >= s.need() {
			clear(told)
			break
		}
		told[fmt.Sprintf("a chain of this contract id of whose %d members %s is none", len(members), strings.Join(out, ", "))]++
	}
	text := fmt.Sprintf("%d of the %d trusted members (contract.unl in hp.cfg) have vouched for a ledger, %d have to: %s",
		len(by), len(s.base.Contract.UNL), s.need(), strings.Join(problems, "; "))
	if len(told) > 0 {
		for chain, peers := range told {
			text += fmt.Sprintf("; %d connected peers follow %s", peers, chain)
		}
		return refused("%s. Check the key that you were given, and whether the peer is one of the chain that you want", text)
	}
	return errors.New(text)
}

// claimed returns the members of the chain that a peer says it is on. Nothing of
// it is verified.
func (s *seeker) claimed(ctx context.Context, p key.Public) (members []key.Public, err error) {
	var t tip
	only := []key.Public{p}
	if err := s.requestOf(ctx, only, kindTip, nil, func(b []byte) (err error) { t, err = decodeTip(b); return err }); err != nil {
		return nil, err
	}
	want := t.ledger.Header.Result.Patch
	err = s.requestOf(ctx, only, kindPatch, want[:], func(b []byte) error {
		if statefs.HashPatch(b) != want {
			return errors.New("another patch.cfg than asked for")
		}
		params, err := patchParameters(s.base, b)
		members = params.Members
		return err
	})
	return members, err
}

// anchor gets and verifies what members have vouched for.
func (s *seeker) anchor(ctx context.Context, a attestation, by []key.Public) (*anchor, error) {
	x := &anchor{by: by}
	from, count := a.height-1, uint16(2)
	if a.height == 1 {
		from, count = 1, 1
	}
	err := s.request(ctx, by, kindLedgers, wire.AppendU16(wire.AppendU64(nil, from), count), func(b []byte) error {
		t, err := decodePair(b, a.height)
		if err != nil {
			return err
		}
		if t.ledger.Header.Hash() != a.ledger {
			return fmt.Errorf("another ledger %d than members vouch for", a.height)
		}
		x.tip = t
		return s.verify(ctx, x)
	})
	if err != nil {
		return nil, fmt.Errorf("ledger %d, for which members vouch: %w", a.height, err)
	}
	for _, k := range by {
		if !slices.Contains(x.params.Members, k) {
			return nil, refused("%s vouches for ledger %d, but is not among the %d members of the UNL that is in force after it",
				k, a.height, len(x.params.Members))
		}
	}
	if x.changes, err = s.fetchChanges(ctx, a, by); err != nil {
		return nil, fmt.Errorf("the changes of the members up to ledger %d: %w", a.height, err)
	}
	return x, nil
}

// decodePair reads a ledger and the one before it from an answer to kindLedgers.
func decodePair(b []byte, height uint64) (t tip, err error) {
	r := wire.NewReader(b)
	if r.Len() == 0 {
		return t, excused{fmt.Errorf("the peer has no ledger %d", height-1)}
	}
	if height > 1 {
		if t.before, _, err = consensus.DecodeLedger(r.View(maxAnswer)); err != nil {
			return t, err
		}
		if r.Len() == 0 {
			return t, excused{fmt.Errorf("the peer has no ledger %d", height)}
		}
	}
	if t.ledger.Header, t.ledger.Certificate, err = consensus.DecodeLedger(r.View(maxAnswer)); err != nil {
		return t, err
	}
	if err := r.Close(); err != nil {
		return t, err
	}
	if h := &t.ledger.Header; h.Height != height || h.Prev != t.before.Hash() || t.before.Height+1 != height {
		return t, fmt.Errorf("ledger %d does not follow the given ledger %d", h.Height, t.before.Height)
	}
	return t, nil
}

// verify fetches what says who the members are, and checks their signatures.
func (s *seeker) verify(ctx context.Context, x *anchor) error {
	h := &x.ledger.Header
	if h.Result.Patch.IsZero() {
		return excused{errors.New("the members have not agreed on a state to begin with yet")}
	}
	var err error
	if x.patch, err = s.fetchPatch(ctx, h.Result.Patch); err != nil {
		return excused{err}
	}
	if x.params, err = patchParameters(s.base, x.patch); err != nil {
		return excused{err}
	}
	closedUnder := x.params
	if old := x.before.Result.Patch; old != h.Result.Patch && !old.IsZero() {
		text, err := s.fetchPatch(ctx, old)
		if err != nil {
			return excused{err}
		}
		if closedUnder, err = patchParameters(s.base, text); err != nil {
			return excused{err}
		}
	}
	return x.ledger.Certificate.Verify(s.verifier, closedUnder, h)
}

// fetchPatch gets a patch.cfg by its hash.
func (a asker) fetchPatch(ctx context.Context, want digest.Hash) (text []byte, err error) {
	err = a.request(ctx, nil, kindPatch, want[:], func(b []byte) error {
		if statefs.HashPatch(b) != want {
			return errors.New("another patch.cfg than asked for")
		}
		text = b
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("patch.cfg %s: %w", want.Short(), err)
	}
	return text, nil
}

// fetchChanges gets all changes of the members up to the attested ledger. They
// are not needed to follow the chain from here on, but by those who were away
// for longer and may one day find only nodes that joined late.
func (s *seeker) fetchChanges(ctx context.Context, a attestation, from []key.Public) ([]change, error) {
	if a.changes.IsZero() {
		return nil, nil
	}
	err := errors.New("no peer is connected")
	for _, p := range s.peersFrom(from) {
		var all []change
		if all, err = s.changesOf(ctx, p, a); err == nil || ctx.Err() != nil {
			return all, err
		}
	}
	return nil, err
}

// changesOf gets all changes from one peer.
func (s *seeker) changesOf(ctx context.Context, p key.Public, a attestation) (all []change, err error) {
	var chain digest.Hash
	after, bytes := uint64(0), 0
	for chain != a.changes {
		err := s.requestOf(ctx, []key.Public{p}, kindChanges, wire.AppendU64(nil, after), func(b []byte) error {
			page, err := decodeChanges(b)
			if err != nil {
				return err
			}
			if bytes += len(b); len(page) == 0 || bytes > maxChangeBytes {
				return excused{errors.New("the peer does not know the changes that the members know")}
			}
			for _, c := range page {
				h := &c.ledger.Header
				if h.Height <= after {
					return fmt.Errorf("a change by ledger %d where one after ledger %d is wanted", h.Height, after)
				}
				if _, _, err := c.verify(s.verifier, s.base); err != nil {
					return err
				}
				hash := h.Hash()
				all, after = append(all, c), h.Height
				if chain = digest.Tagged(changesTag, chain[:], hash[:]); chain == a.changes {
					break
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// join makes this node one that has the anchor as its last ledger. Nothing of
// what lies before is executed here.
func (n *node) join(ctx context.Context, conf *config.Config, last *consensus.Header, cert *consensus.Certificate) (*config.Config, error) {
	s := &seeker{asker: n.asker(), chain: n.chain, base: conf, verifier: n.verifier}
	a, err := s.find(ctx)
	if err != nil {
		var no *RefusedError
		if errors.As(err, &no) {
			err = fmt.Errorf("join contract %s: %w", conf.Contract.ID, err)
		}
		return nil, err
	}
	h := &a.ledger.Header
	if err := n.patches.put(h.Result.Patch, a.patch); err != nil {
		return nil, err
	}
	for i := range a.changes {
		if err := n.changes.add(&a.changes[i]); err != nil {
			return nil, err
		}
	}
	next, err := n.patches.apply(conf, h.Result.Patch)
	if err != nil {
		return nil, err
	}
	lsn, err := n.store.StartAt(ledger.Record{
		Seq: h.Height, Hash: h.Hash(), Prev: h.Prev, Time: h.Time,
		Body: consensus.AppendLedger(nil, h, &a.ledger.Certificate),
	})
	if err != nil {
		return nil, fmt.Errorf("write ledger %d: %w", h.Height, err)
	}
	if err := n.store.Sync(ctx, lsn); err != nil {
		return nil, err
	}
	*last, *cert = *h, a.ledger.Certificate
	n.last.Store(&lastLedger{h.Height, h.Hash(), h.Time, h.Result})
	n.exec.synced.Store(false)
	n.adopt(conf, next)
	vouched := make([]string, len(a.by))
	for i, k := range a.by {
		vouched[i] = k.String()
	}
	n.log.Info("joined the chain; state and inputs follow", "ledger", h.Height, "hash", h.Hash().Short(), "members", len(a.params.Members),
		"must_agree", a.params.Quorum(), "vouched", strings.Join(vouched, " "), "member", slices.Contains(a.params.Members, n.key.Public()))
	return next, nil
}

// Found is what Seek has found out about a chain.
type Found struct {
	Ledger  uint64       // the last closed one
	Hash    digest.Hash  // of it
	Members []key.Public // the UNL in force, ascending
	Quorum  int          // how many of them close a ledger
	Vouched []key.Public // whose word this rests on
	Version string       // of the contract
}

// Seek finds out whether a node with the given configuration, which must not be
// running, could join its chain: it connects to the peers, and verifies what they
// say by the keys in contract.unl, as the node will at its first start. It keeps
// nothing. The error is a *RefusedError when another attempt would not help;
// when ctx ends, it says what was missing.
func Seek(ctx context.Context, conf *config.Config, log *slog.Logger) (Found, error) {
	m, err := mesh.New(mesh.Config{
		Key: conf.Node.PrivateKey, ContractID: conf.Contract.ID, Observer: true,
		KnownPeers: conf.Mesh.KnownPeers, UNL: conf.Contract.UNL, Discovery: true,
	}, bystander{}, log)
	if err != nil {
		return Found{}, err
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- m.Run(run) }()
	s := &seeker{
		asker: asker{m, log}, chain: consensus.ChainOf(conf.Contract.ID), base: conf,
		verifier: key.NewCache(consensus.MaxMembers),
	}
	a, err := s.find(ctx)
	stop()
	if e := <-done; err == nil {
		err = e
	}
	if err != nil {
		return Found{}, err
	}
	p, err := config.ParsePatch(a.patch)
	if err != nil {
		return Found{}, err
	}
	h := &a.ledger.Header
	return Found{h.Height, h.Hash(), a.params.Members, a.params.Quorum(), a.by, p.Version}, nil
}

// bystander takes nothing and serves nothing.
type bystander struct{}

func (bystander) Receive(key.Public, mesh.Kind, []byte) mesh.Verdict { return mesh.Ignore }
func (bystander) PeerUp(key.Public)                                  {}
func (bystander) PeerDown(key.Public)                                {}
func (bystander) Serve(context.Context, key.Public, mesh.Kind, []byte) ([]byte, error) {
	return nil, errNotHeld
}
