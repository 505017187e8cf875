package inputs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// bundleOf makes a bundle of parsed inputs without signatures.
func bundleOf(inputs ...Input) *Bundle {
	b := &Bundle{}
	b.keep(inputs)
	return b
}

func hashOf(s string) digest.Hash { return digest.Sum([]byte(s)) }

func input(u key.Public, nonce, maxLedger uint64, payload string) Input {
	return Input{User: u, Nonce: nonce, MaxLedger: maxLedger, Payload: []byte(payload),
		Hash: hashOf(fmt.Sprint(u, nonce, maxLedger, payload))}
}

func withHash(in Input, h byte) Input {
	in.Hash = digest.Hash{h}
	return in
}

// outcome writes a selection as one text per input: user's second byte, nonce and
// payload of the accepted, user's second byte and reason of the rejected.
func outcome(s Selection) (accepted, rejected []string) {
	for _, u := range s.Users {
		for _, in := range u.Inputs {
			accepted = append(accepted, fmt.Sprintf("%d:%d:%s", in.User[1], in.Nonce, in.Payload))
		}
	}
	for _, r := range s.Rejected {
		rejected = append(rejected, fmt.Sprintf("%d:%s", r.User[1], r.Reason))
	}
	return accepted, rejected
}

func TestSelect(t *testing.T) {
	a, b := key.Public{key.Prefix, 1}, key.Public{key.Prefix, 2}
	type ledger struct {
		params   Params
		bundles  []*Bundle
		accepted []string
		rejected []string
	}
	at := func(seq uint64) Params { return Params{Seq: seq, MaxOffset: 20, UserInputBytes: 10} }
	one := func(in ...Input) []*Bundle { return []*Bundle{bundleOf(in...)} }
	for _, c := range []struct {
		name    string
		ledgers []ledger
	}{
		{"users by key, inputs by nonce", []ledger{{at(1), []*Bundle{
			bundleOf(input(b, 1, 9, "x"), input(a, 3, 9, "c")), bundleOf(input(a, 1, 9, "a"), input(a, 2, 9, "b"))},
			[]string{"1:1:a", "1:2:b", "1:3:c", "2:1:x"}, nil}}},
		{"the first and last ledger of an input", []ledger{
			{at(10), one(input(a, 1, 29, "far"), input(a, 2, 30, "too far"), input(a, 3, 10, "near"), input(a, 4, 9, "late"), input(a, 5, 0, "never")),
				[]string{"1:1:far", "1:3:near"}, []string{"1:max_ledger_offset_exceeded", "1:max_ledger_expired", "1:max_ledger_expired"}}}},
		{"no limits", []ledger{
			{Params{Seq: 10}, one(input(a, 1, math.MaxUint64, "0123456789abc")), []string{"1:1:0123456789abc"}, nil}}},
		{"bytes per user", []ledger{
			{at(1), one(input(a, 1, 9, "123456"), input(a, 2, 9, "12345"), input(a, 3, 9, "1234"), input(a, 4, 9, ""), input(a, 5, 9, "1"), input(b, 1, 9, "1234567890")),
				[]string{"1:1:123456", "1:3:1234", "1:4:", "2:1:1234567890"}, []string{"1:round_inputs_overflow", "1:round_inputs_overflow"}},
			{at(2), one(input(a, 6, 9, "1234567890")), []string{"1:6:1234567890"}, nil}}},
		{"a copy in the same ledger is silent", []ledger{
			{at(1), []*Bundle{bundleOf(input(a, 1, 9, "x")), bundleOf(input(a, 1, 9, "x"), input(a, 1, 9, "x"))}, []string{"1:1:x"}, nil}}},
		{"a copy in a later ledger is silent", []ledger{
			{at(1), one(input(a, 1, 9, "x")), []string{"1:1:x"}, nil},
			{at(2), one(input(a, 1, 9, "x")), nil, nil}}},
		{"a copy of an earlier input", []ledger{
			{at(1), one(input(a, 1, 9, "x"), input(a, 2, 9, "y")), []string{"1:1:x", "1:2:y"}, nil},
			{at(2), one(input(a, 1, 9, "x")), nil, []string{"1:nonce_expired"}}}},
		{"a rejected copy is told once", []ledger{
			{at(9), one(input(a, 1, 3, "x"), input(a, 1, 3, "x")), nil, []string{"1:max_ledger_expired"}}}},
		{"equal nonces: the lower hash", []ledger{
			{at(1), one(withHash(input(a, 1, 9, "z"), 2), withHash(input(a, 1, 9, "x"), 1)), []string{"1:1:x"}, []string{"1:nonce_expired"}}}},
		{"a lower nonce once the user is forgotten", []ledger{
			{at(1), one(input(a, 5, 3, "x")), []string{"1:5:x"}, nil},
			{at(3), one(input(a, 4, 9, "y")), nil, []string{"1:nonce_expired"}},
			{at(4), one(input(a, 4, 9, "y")), []string{"1:4:y"}, nil}}},
		{"a long-lived input cannot be replayed after a short-lived one", []ledger{
			{at(1), one(input(a, 1, 20, "pay")), []string{"1:1:pay"}, nil},
			{at(2), one(input(a, 2, 4, "x")), []string{"1:2:x"}, nil},
			{at(6), one(input(a, 1, 20, "pay")), nil, []string{"1:nonce_expired"}},
			{at(20), one(input(a, 1, 20, "pay")), nil, []string{"1:nonce_expired"}},
			{at(21), one(input(a, 1, 20, "pay")), nil, []string{"1:max_ledger_expired"}}}},
		{"a rejected input leaves no trace", []ledger{
			{at(1), one(input(a, 9, 9, "12345678901"), input(a, 10, 0, "")), nil, []string{"1:round_inputs_overflow", "1:max_ledger_expired"}},
			{at(2), one(input(a, 1, 9, "x")), []string{"1:1:x"}, nil}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := NewNonces()
			for _, l := range c.ledgers {
				s := Select(l.params, n, l.bundles)
				accepted, rejected := outcome(s)
				if !slices.Equal(accepted, l.accepted) || !slices.Equal(rejected, l.rejected) {
					t.Fatalf("ledger %d: accepted %q, rejected %q; want %q, %q", l.params.Seq, accepted, rejected, l.accepted, l.rejected)
				}
				if s.Count() != len(accepted) {
					t.Fatalf("count %d", s.Count())
				}
			}
		})
	}
}

func TestInputHash(t *testing.T) {
	a, b := key.Public{key.Prefix, 1}, key.Public{key.Prefix, 2}
	x, y, z := input(a, 3, 9, "x"), input(b, 1, 9, "y"), input(b, 256, 9, "z")
	s := Select(Params{Seq: 1}, NewNonces(), []*Bundle{bundleOf(x, y, z)})
	if got, want := s.InputHash(), digest.Sum(y.Hash[:], x.Hash[:], z.Hash[:]); got != want {
		t.Errorf("input hash %s, want %s", got, want)
	}
	if s = Select(Params{Seq: 1}, NewNonces(), nil); !s.InputHash().IsZero() {
		t.Error("hash of no inputs is not zero")
	}
}

// TestSelectIgnoresOrder deals random inputs, many of them in conflict, to bundles
// in two different ways.
func TestSelectIgnoresOrder(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		one, two := NewNonces(), NewNonces()
		for seq := uint64(1); seq < 20; seq++ {
			var all []Input
			for range rnd.IntN(60) {
				u := key.Public{key.Prefix, byte(rnd.IntN(3)), byte(rnd.IntN(2)), byte(rnd.IntN(3))}
				in := input(u, 1+rnd.Uint64N(12), seq-1+rnd.Uint64N(6), string(make([]byte, rnd.IntN(4))))
				if rnd.IntN(4) == 0 {
					// A key of small order: one signature, many inputs.
					in.Hash = digest.Hash{byte(rnd.IntN(2))}
				}
				all = append(all, in)
			}
			deal := func() (bundles []*Bundle) {
				rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
				for rest := all; len(rest) > 0; {
					n := 1 + rnd.IntN(len(rest))
					bundles = append(bundles, bundleOf(slices.Clone(rest[:n])...))
					rest = rest[n:]
				}
				if len(bundles) > 0 { // the same bundle from somebody else
					bundles = append(bundles, bundles[rnd.IntN(len(bundles))])
				}
				return bundles
			}
			p := Params{Seq: seq, MaxOffset: 4, UserInputBytes: 5}
			s1, s2 := Select(p, one, deal()), Select(p, two, deal())
			if !reflect.DeepEqual(s1, s2) || s1.InputHash() != s2.InputHash() {
				t.Fatalf("seed %d, ledger %d: selections differ:\n%v\n%v", seed, seq, s1, s2)
			}
			if one.Hash() != two.Hash() || one.Len() != two.Len() {
				t.Fatalf("seed %d, ledger %d: nonce tables differ", seed, seq)
			}
		}
	}
}

// modelNonces is the nonce rule written down in the plainest way.
type modelNonces map[key.Public]nonceEntry

func TestNoncesAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	n, model := NewNonces(), modelNonces{}
	// accepted holds what ran, to see that nothing runs twice.
	accepted := map[digest.Hash]bool{}
	var past []Input
	for seq := uint64(1); seq < 400; seq++ {
		var ins []Input
		for range rnd.IntN(20) {
			if len(past) > 0 && rnd.IntN(4) == 0 {
				ins = append(ins, past[rnd.IntN(len(past))])
				continue
			}
			u := key.Public{key.Prefix, byte(rnd.IntN(4)), byte(rnd.IntN(4)), byte(rnd.IntN(4))}
			ins = append(ins, input(u, 1+rnd.Uint64N(40), seq+rnd.Uint64N(30), ""))
		}
		past = append(past, ins...)
		for u, e := range model {
			if e.maxLedger <= seq-1 {
				delete(model, u)
			}
		}
		s := Select(Params{Seq: seq}, n, []*Bundle{bundleOf(ins...)})
		for _, u := range s.Users {
			for _, in := range u.Inputs {
				if accepted[in.Hash] {
					t.Fatalf("ledger %d: input %v ran twice", seq, in)
				}
				accepted[in.Hash] = true
				e, ok := model[in.User]
				if ok && in.Nonce <= e.nonce {
					t.Fatalf("ledger %d: nonce %d accepted after %d", seq, in.Nonce, e.nonce)
				}
				model[in.User] = nonceEntry{in.User, in.Nonce, in.Hash, max(e.maxLedger, in.MaxLedger)}
			}
		}
		if n.Len() != len(model) {
			t.Fatalf("ledger %d: %d users remembered, want %d", seq, n.Len(), len(model))
		}
		for u, e := range model {
			if got := n.find(u); got == nil || *got != e {
				t.Fatalf("ledger %d: entry %v, want %v", seq, got, e)
			}
			for _, c := range []struct {
				nonce uint64
				hash  digest.Hash
				lcl   uint64
				want  Reason
			}{
				{e.nonce, e.hash, seq, AlreadySubmitted}, {e.nonce, digest.Hash{}, seq, NonceExpired},
				{e.nonce - 1, e.hash, seq, NonceExpired}, {e.nonce + 1, e.hash, seq, None}, {1, e.hash, e.maxLedger, None},
			} {
				if e.maxLedger <= seq && c.lcl == seq {
					c.want = None
				}
				if got := n.Check(u, c.nonce, c.hash, c.lcl); got != c.want {
					t.Fatalf("ledger %d: check %v of %v: %q", seq, c, e, got)
				}
			}
		}
		// A table made from the entries alone has the same hash.
		again, err := DecodeNonces(n.Encode(), n.Hash())
		if err != nil {
			t.Fatal(err)
		}
		if seq%50 == 0 { // and goes on in the same way
			n = again
		}
		filed := 0
		for _, users := range n.expiry {
			filed += len(users)
		}
		if filed != n.Len() || len(n.due) != len(n.expiry) {
			t.Fatalf("ledger %d: %d users filed for expiry, %d remembered", seq, filed, n.Len())
		}
	}
	n.Expire(1000)
	if n.Len() != 0 || n.Hash() != NewNonces().Hash() || len(n.due) != 0 {
		t.Error("an emptied table is not an empty one")
	}
}

func TestNoncesAreSafeForConcurrentUse(t *testing.T) {
	n := NewNonces()
	u := key.Public{key.Prefix, 1}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 200 {
				n.Check(u, 1, digest.Hash{}, 1)
				n.Hash()
				if _, err := DecodeNonces(n.Encode(), digest.Hash{}); !errors.Is(err, ErrNonceHash) {
					t.Error(err)
				}
			}
		})
	}
	for i := range uint64(200) {
		Select(Params{Seq: i + 1}, n, []*Bundle{bundleOf(input(u, i+1, i+5, ""), input(key.Public{key.Prefix, byte(i)}, 1, i+2, ""))})
	}
	wg.Wait()
	// Each Check of u saw one of the states, the last of which is this.
	if r := n.Check(u, 200, digest.Hash{}, 199); r != NonceExpired {
		t.Errorf("%q", r)
	}
}

func TestNoncesHashCoversAll(t *testing.T) {
	base := nonceEntry{user: key.Public{key.Prefix, 1, 2, 3}, nonce: 5, hash: digest.Hash{6}, maxLedger: 7}
	hash := func(entries ...nonceEntry) digest.Hash {
		n := NewNonces()
		for _, e := range entries {
			node, leaf := n.touch(e.user)
			n.insert(node, leaf, e)
		}
		return n.Hash()
	}
	seen := map[digest.Hash]string{hash(): "empty", hash(base): "base"}
	for name, change := range map[string]func(*nonceEntry){
		"user": func(e *nonceEntry) { e.user[32]++ }, "leaf": func(e *nonceEntry) { e.user[2]++ }, "node": func(e *nonceEntry) { e.user[1]++ },
		"nonce": func(e *nonceEntry) { e.nonce++ }, "hash": func(e *nonceEntry) { e.hash[31]++ }, "max": func(e *nonceEntry) { e.maxLedger++ },
	} {
		e := base
		change(&e)
		h := hash(e)
		if other, ok := seen[h]; ok {
			t.Errorf("%s: same hash as %s", name, other)
		}
		seen[h] = name
		if h := hash(base, e); name != "nonce" && name != "hash" && name != "max" {
			if other, ok := seen[h]; ok {
				t.Errorf("both with %s: same hash as %s", name, other)
			}
		}
	}
}

func TestDecodeNoncesIsStrict(t *testing.T) {
	n := NewNonces()
	Select(Params{Seq: 1}, n, []*Bundle{bundleOf(input(key.Public{key.Prefix, 1}, 1, 9, ""), input(key.Public{key.Prefix, 2}, 1, 9, ""))})
	enc, h := n.Encode(), n.Hash()
	if _, err := DecodeNonces(enc, digest.Hash{}); !errors.Is(err, ErrNonceHash) {
		t.Errorf("wrong hash: %v", err)
	}
	swapped := slices.Concat(enc[:4], enc[4+nonceEntrySize:], enc[4:4+nonceEntrySize])
	if _, err := DecodeNonces(swapped, h); err == nil || errors.Is(err, ErrNonceHash) {
		t.Errorf("swapped: %v", err)
	}
	for i := range enc {
		if _, err := DecodeNonces(enc[:i], h); err == nil {
			t.Errorf("cut to %d bytes and accepted", i)
		}
		wrong := bytes.Clone(enc)
		wrong[i] ^= 1
		if _, err := DecodeNonces(wrong, h); err == nil {
			t.Errorf("byte %d changed and accepted", i)
		}
	}
}

func TestCheckSubmission(t *testing.T) {
	u := key.Public{key.Prefix, 1}
	n := NewNonces()
	Select(Params{Seq: 9}, n, []*Bundle{bundleOf(input(u, 5, 30, "x"))})
	p := Params{Seq: 10, MaxOffset: 10, UserInputBytes: 8}
	for _, c := range []struct {
		name    string
		in      Input
		pending uint64
		params  Params
		want    Reason
	}{
		{"fine", input(u, 6, 19, "12345678"), 0, p, None},
		{"fine with pending", input(u, 6, 19, "123"), 5, p, None},
		{"all wrong: offset comes first", input(u, 1, 20, "123456789"), 100, p, OffsetExceeded},
		{"then expiry", input(u, 1, 9, "123456789"), 100, p, Expired},
		{"then bytes", input(u, 1, 10, "1234"), 5, p, InputsOverflow},
		{"bytes of a changed limit", input(u, 1, 10, ""), 9, p, InputsOverflow},
		{"then nonce", input(u, 5, 19, "1234"), 4, p, NonceExpired},
		{"the remembered input", input(u, 5, 30, "x"), 0, Params{Seq: 10}, AlreadySubmitted},
		{"no limits", input(u, 6, math.MaxUint64, "123456789"), math.MaxUint64, Params{Seq: 10}, None},
	} {
		before := n.Hash()
		if got := CheckSubmission(c.params, c.pending, &c.in, n); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if n.Hash() != before {
			t.Errorf("%s: changed the table", c.name)
		}
	}
}

// TestSmallOrderKey shows why sortable.compare does not stop at the hash: this key
// and signature are good for any message.
func TestSmallOrderKey(t *testing.T) {
	u := key.Public{key.Prefix, 1}
	var sig key.Signature
	sig[0] = 1 // R is the neutral point, S is 0
	var bundles []*Bundle
	for _, payload := range []string{"a", "b"} {
		b := pack(t, user(t, 1), 1, 1, Submission{User: u, Protocol: JSON, Sig: sig,
			Container: fmt.Appendf(nil, `{"input":%q,"nonce":1,"max_ledger_seq_no":9}`, payload)})
		if err := b.Verify(1, nil); err != nil {
			t.Fatal(err)
		}
		bundles = append(bundles, b)
	}
	p := Params{Seq: 1}
	first := Select(p, NewNonces(), bundles)
	slices.Reverse(bundles)
	if second := Select(p, NewNonces(), bundles); !reflect.DeepEqual(first, second) || first.Count() != 1 {
		t.Errorf("%v and %v", first, second)
	}
}

func FuzzDecodeNonces(f *testing.F) {
	n := NewNonces()
	f.Add(n.Encode())
	Select(Params{Seq: 1}, n, []*Bundle{bundleOf(input(key.Public{key.Prefix, 1}, 1, 9, ""), input(key.Public{key.Prefix, 1, 0, 1}, 1, 9, ""), input(key.Public{key.Prefix, 2}, 1, 7, ""))})
	f.Add(n.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := DecodeNonces(b, digest.Hash{}); err == nil || !errors.Is(err, ErrNonceHash) {
			return
		}
		// Well formed: rebuild it by hand.
		n := NewNonces()
		for rest := b[4:]; len(rest) > 0; rest = rest[nonceEntrySize:] {
			var e nonceEntry
			copy(e.user[:], rest)
			e.nonce = binary.BigEndian.Uint64(rest[33:])
			copy(e.hash[:], rest[41:])
			e.maxLedger = binary.BigEndian.Uint64(rest[73:])
			node, leaf := n.touch(e.user)
			n.insert(node, leaf, e)
		}
		again, err := DecodeNonces(b, n.Hash())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Encode(), b) {
			t.Fatal("encodes to other bytes")
		}
	})
}

func randomUsers(n int) []key.Public {
	rnd := rand.NewChaCha8([32]byte{})
	users := make([]key.Public, n)
	for i := range users {
		rnd.Read(users[i][1:])
		users[i][0] = key.Prefix
	}
	return users
}

func BenchmarkSelect1000(b *testing.B) {
	for _, known := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("known=%d", known), func(b *testing.B) {
			users := randomUsers(max(known, 500))
			n := NewNonces()
			for _, u := range users[:known] {
				Select(Params{Seq: 1}, n, []*Bundle{bundleOf(Input{User: u, Nonce: 1, MaxLedger: 1 << 40})})
			}
			n.Hash()
			var bundles []*Bundle
			for i := range 4 {
				ins := make([]Input, 250)
				for j := range ins {
					at := i*250 + j
					ins[j] = input(users[at%500], 2, 1<<40, "some text")
				}
				bundles = append(bundles, bundleOf(ins...))
			}
			nonce := uint64(2)
			b.ReportAllocs()
			for b.Loop() {
				// As 1000 fresh inputs of 500 users.
				for i, bundle := range bundles {
					for j := range bundle.inputs {
						bundle.inputs[j].Nonce = nonce + uint64((i*250+j)/500)
					}
				}
				nonce += 2
				if s := Select(Params{Seq: 2}, n, bundles); s.Count() != 1000 {
					b.Fatal(s.Count(), s.Rejected[0])
				}
			}
		})
	}
}

func BenchmarkNoncesHash(b *testing.B) {
	for _, known := range []int{1000, 100_000} {
		for _, changed := range []int{1, 500} {
			b.Run(fmt.Sprintf("known=%d/changed=%d", known, changed), func(b *testing.B) {
				users := randomUsers(known)
				n := NewNonces()
				for _, u := range users {
					n.accept(&Input{User: u, Nonce: 1, MaxLedger: 1 << 40}, 1)
				}
				n.Hash()
				nonce := uint64(1)
				for b.Loop() {
					nonce++
					for _, u := range users[:changed] {
						n.accept(&Input{User: u, Nonce: nonce, MaxLedger: 1 << 40}, 1)
					}
					n.Hash()
				}
			})
		}
	}
}
