package hotpocket

import (
	"bytes"
	"testing"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

func seededKey(t testing.TB, fill byte) key.Private {
	t.Helper()
	k, err := key.FromSeed(bytes.Repeat([]byte{fill}, key.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSignaturesOfOutputs(t *testing.T) {
	s := newSignatures()
	a, b := seededKey(t, 1), seededKey(t, 2)
	root := digest.Sum([]byte("root"))
	got, changed := s.by(root, []key.Public{a.Public(), b.Public()})
	if len(got) != 0 {
		t.Fatalf("%d signatures of an unknown root", len(got))
	}
	s.add(root, b.Public(), b.Sign(root[:]))
	select {
	case <-changed:
	default:
		t.Error("a new signature wakes nobody")
	}
	s.add(root, a.Public(), a.Sign(root[:]))
	got, changed = s.by(root, []key.Public{a.Public(), b.Public()})
	if len(got) != 2 || got[0].Key != a.Public() || got[1].Key != b.Public() {
		t.Errorf("got %v", got)
	}
	s.add(root, a.Public(), a.Sign(root[:]))
	select {
	case <-changed:
		t.Error("a known signature counts as new")
	default:
	}
	if got, _ = s.by(root, []key.Public{b.Public()}); len(got) != 1 {
		t.Errorf("%d signatures of one member", len(got))
	}
	for i := range keptRoots {
		other := digest.Sum([]byte{byte(i)})
		s.add(other, a.Public(), a.Sign(other[:]))
	}
	if got, _ = s.by(root, []key.Public{a.Public()}); len(got) != 0 || len(s.of) != keptRoots {
		t.Errorf("%d roots are kept, want %d", len(s.of), keptRoots)
	}
}

func FuzzDecodeOutputSig(f *testing.F) {
	k := seededKey(f, 1)
	root := digest.Sum([]byte("root"))
	f.Add(encodeOutputSig(k.Public(), root, k.Sign(root[:])))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		by, root, sig, err := decodeOutputSig(b)
		if err == nil && !bytes.Equal(encodeOutputSig(by, root, sig), b) {
			t.Error("decoding and encoding changes the message")
		}
	})
}
