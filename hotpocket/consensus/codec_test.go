package consensus

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"evernode/internal/digest"
)

func randomHash(rng *rand.Rand) (h digest.Hash) {
	for i := range h {
		h[i] = byte(rng.Uint32())
	}
	return h
}

func randomHashes(rng *rand.Rand, n int) (hs []digest.Hash) {
	for range n {
		hs = append(hs, randomHash(rng))
	}
	return hs
}

func randomResult(rng *rand.Rand) Result {
	return Result{randomHash(rng), randomHash(rng), randomHash(rng), randomHash(rng), randomHash(rng), randomHash(rng)}
}

func randomHeader(rng *rand.Rand) Header {
	h := Header{
		Height: rng.Uint64(), Prev: randomHash(rng), Time: rng.Uint64(), Outcome: Outcome(rng.IntN(3)), Run: rng.Uint64(),
		Contested: uint8(rng.Uint32()), Result: randomResult(rng), Bundles: randomHashes(rng, rng.IntN(4)), Presences: randomHashes(rng, rng.IntN(4)),
	}
	h.Expected.Set(rng.IntN(MaxMembers))
	return h
}

func randomProposal(rng *rand.Rand) *Proposal {
	p := &Proposal{
		Author: fakeKey(rng.IntN(9)), Height: rng.Uint64(), Attempt: rng.Uint32(), Prev: randomHash(rng), Ran: rng.IntN(2) == 0,
		Result: randomResult(rng), Clock: rng.Uint64(), Bundles: randomHashes(rng, rng.IntN(4)), Presence: randomHash(rng),
	}
	p.Seen.Set(rng.IntN(MaxMembers))
	return p.signedBy(hashOf("chain"))
}

func randomBallot(rng *rand.Rand) *Ballot {
	b := &Ballot{Author: fakeKey(rng.IntN(9)), Phase: Phase(1 + rng.IntN(2)), Height: rng.Uint64(), Attempt: rng.Uint32(), Hash: randomHash(rng)}
	b.Sig = fakeSignature(b.Author, b.signed(hashOf("chain")))
	return b
}

func randomCertificate(rng *rand.Rand) (c Certificate) {
	c.Attempt = rng.Uint32()
	for i := range rng.IntN(4) {
		c.Commits = append(c.Commits, Signed{fakeKey(i), fakeSignature(fakeKey(i), nil)})
	}
	return c
}

// randomMessages are a few messages of every kind.
func randomMessages(rng *rand.Rand) []Message {
	var out []Message
	for range 20 {
		x := &Candidate{Author: fakeKey(rng.IntN(9)), Height: rng.Uint64(), Attempt: rng.Uint32(), Header: randomHeader(rng)}
		for range rng.IntN(3) {
			x.Proposals = append(x.Proposals, randomProposal(rng))
		}
		for range rng.IntN(3) {
			x.Votes = append(x.Votes, randomBallot(rng))
		}
		x.Sig = fakeSignature(x.Author, x.signed(hashOf("chain")))
		out = append(out, randomProposal(rng), randomBallot(rng), x, &Ledger{randomHeader(rng), randomCertificate(rng)})
	}
	return out
}

func TestMessagesSurviveTheirEncoding(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, m := range randomMessages(rng) {
		b := Encode(m)
		got, err := Decode(b)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if !reflect.DeepEqual(got, m) {
			t.Fatalf("%T comes back as %+v, was %+v", m, got, m)
		}
		if err := VerifySignature(fakeVerifier{}, hashOf("chain"), got); err != nil {
			t.Fatal(err)
		}
		// Every byte matters: no part can be changed and still be the author's,
		// and no cut or extended message is read.
		for range 40 {
			i, bit := rng.IntN(len(b)), byte(1<<rng.IntN(8))
			b[i] ^= bit
			x, err := Decode(b)
			if _, ledger := m.(*Ledger); !ledger && err == nil && VerifySignature(fakeVerifier{}, hashOf("chain"), x) == nil {
				// The plain signature of outputs covers nothing but them, and
				// means nothing where there are none.
				if p, ok := x.(*Proposal); !ok || p.Ran {
					t.Fatalf("%T with a changed byte %d of %d is still signed", m, i, len(b))
				}
			}
			b[i] ^= bit
		}
		if _, err := Decode(b[:rng.IntN(len(b))]); err == nil {
			t.Fatalf("%T cut short is read", m)
		}
		if _, err := Decode(append(b, 0)); err == nil {
			t.Fatalf("%T with a byte too many is read", m)
		}
	}
}

// TestSignaturesAreSeparate checks that no signature is good for another
// contract, or for a ballot of another kind, height or attempt.
func TestSignaturesAreSeparate(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, m := range randomMessages(rng) {
		if _, ledger := m.(*Ledger); !ledger && VerifySignature(fakeVerifier{}, hashOf("another chain"), m) == nil {
			t.Fatalf("%T is signed for another chain as well", m)
		}
	}
	b := randomBallot(rng)
	for _, change := range []func(*Ballot){
		func(b *Ballot) { b.Phase = 3 - b.Phase },
		func(b *Ballot) { b.Height++ },
		func(b *Ballot) { b.Attempt++ },
		func(b *Ballot) { b.Hash[0]++ },
		func(b *Ballot) { b.Author[5]++ },
	} {
		x := *b
		change(&x)
		if VerifySignature(fakeVerifier{}, hashOf("chain"), &x) == nil {
			t.Errorf("%+v is signed as well", x)
		}
	}
	p := randomProposal(rng)
	p.Ran, p.OutputSig[0] = true, p.OutputSig[0]+1
	p.Sig = fakeSignature(p.Author, p.signed(hashOf("chain")))
	if err := VerifySignature(fakeVerifier{}, hashOf("chain"), p); err == nil || !strings.Contains(err.Error(), "outputs") {
		t.Errorf("wrong signature of outputs: %v", err)
	}
}

func TestHeaderHash(t *testing.T) {
	var genesis Header
	if !genesis.Hash().IsZero() {
		t.Error("genesis has a hash")
	}
	h := randomHeader(rand.New(rand.NewPCG(5, 6)))
	seen := map[digest.Hash]string{h.Hash(): "unchanged"}
	for name, change := range map[string]func(*Header){
		"height": func(h *Header) { h.Height++ }, "prev": func(h *Header) { h.Prev[0]++ }, "time": func(h *Header) { h.Time++ },
		"outcome": func(h *Header) { h.Outcome = (h.Outcome + 1) % 3 }, "run": func(h *Header) { h.Run++ }, "contested": func(h *Header) { h.Contested++ },
		"state": func(h *Header) { h.Result.State[0]++ }, "patch": func(h *Header) { h.Result.Patch[0]++ }, "output": func(h *Header) { h.Result.Output[0]++ },
		"nonces": func(h *Header) { h.Result.Nonces[0]++ }, "users": func(h *Header) { h.Result.Users[0]++ }, "inputs": func(h *Header) { h.Result.Inputs[0]++ },
		"bundle":   func(h *Header) { h.Bundles = append([]digest.Hash{{1}}, h.Bundles...) },
		"presence": func(h *Header) { h.Presences = append([]digest.Hash{{1}}, h.Presences...) },
		"expected": func(h *Header) { h.Expected[9]++ },
	} {
		x := h
		change(&x)
		if other, ok := seen[x.Hash()]; ok {
			t.Errorf("changing %s does not change the hash (%s)", name, other)
		}
		seen[x.Hash()] = name
	}
}

func TestDecodeRefuses(t *testing.T) {
	h := randomHeader(rand.New(rand.NewPCG(7, 8)))
	h.Outcome = 3
	if _, err := DecodeHeader(h.Append(nil)); err == nil || !strings.Contains(err.Error(), "outcome") {
		t.Errorf("unknown outcome: %v", err)
	}
	h.Outcome = 0
	b := h.Append(nil)
	b[0] = 9
	if _, err := DecodeHeader(b); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("unknown version: %v", err)
	}
	for _, b := range [][]byte{nil, {0}, {9}, {kindProposal}, {kindLedger}} {
		if _, err := Decode(b); err == nil {
			t.Errorf("%v is read", b)
		}
	}
	ballot := Encode(&Ballot{Phase: Vote})
	ballot[1+33] = 3
	if _, err := Decode(ballot); err == nil || !strings.Contains(err.Error(), "phase") {
		t.Errorf("unknown phase: %v", err)
	}
	p := &Proposal{Bundles: make([]digest.Hash, MaxBundles+1)}
	if _, err := Decode(Encode(p)); err == nil {
		t.Error("a proposal of too many bundles is read")
	}
}

func seedMessages(f *testing.F) {
	for _, m := range randomMessages(rand.New(rand.NewPCG(9, 10)))[:8] {
		f.Add(Encode(m))
	}
}

func FuzzDecode(f *testing.F) {
	seedMessages(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if again := Encode(m); string(again) != string(b) {
			t.Fatalf("two encodings of one message: %x and %x", b, again)
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	rng := rand.New(rand.NewPCG(11, 12))
	for range 4 {
		h := randomHeader(rng)
		f.Add(h.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHeader(b)
		if err == nil && string(h.Append(nil)) != string(b) {
			t.Fatalf("two encodings of one header: %x", b)
		}
	})
}

func FuzzDecodeLedger(f *testing.F) {
	rng := rand.New(rand.NewPCG(13, 14))
	for range 4 {
		h, c := randomHeader(rng), randomCertificate(rng)
		f.Add(AppendLedger(nil, &h, &c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, c, err := DecodeLedger(b)
		if err == nil && string(AppendLedger(nil, &h, &c)) != string(b) {
			t.Fatalf("two encodings of one ledger: %x", b)
		}
	})
}

func FuzzRecords(f *testing.F) {
	rng := rand.New(rand.NewPCG(15, 16))
	f.Add(enteredRecord(7, 3))
	for range 3 {
		l := &proven{attempt: rng.Uint32(), header: randomHeader(rng)}
		for range 3 {
			l.votes = append(l.votes, randomBallot(rng))
		}
		f.Add(lockRecord(7, l))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readPromises(7, [][]byte{b})
		if err == nil && p.lock != nil && string(lockRecord(7, p.lock)) != string(b) {
			t.Fatalf("two encodings of one record: %x", b)
		}
	})
}

func TestPromises(t *testing.T) {
	h := randomHeader(rand.New(rand.NewPCG(17, 18)))
	lock := func(attempt uint32) []byte { return lockRecord(7, &proven{attempt: attempt, header: h}) }
	p, err := readPromises(7, [][]byte{enteredRecord(6, 9), enteredRecord(7, 2), lock(2), enteredRecord(7, 3), lock(1)})
	if err != nil || p.attempt != 3 || p.lock == nil || p.lock.attempt != 2 || p.lock.header.Hash() != h.Hash() {
		t.Errorf("got %+v, %v", p, err)
	}
	if p, err := readPromises(8, [][]byte{enteredRecord(7, 2), lock(2)}); err != nil || p.attempt != 0 || p.lock != nil {
		t.Errorf("records of another height count: %+v, %v", p, err)
	}
	for _, bad := range [][]byte{nil, {1}, {3, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0}, append(lock(1), 1)} {
		if _, err := readPromises(7, [][]byte{bad}); err == nil || !strings.Contains(err.Error(), "record 1 of 1") {
			t.Errorf("%x: %v", bad, err)
		}
	}
}
