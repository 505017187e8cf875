package inputs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"evernode/hotpocket/key"
)

// submit signs a JSON container.
func submit(u key.Private, nonce, maxLedger uint64, payload string) Submission {
	s := Submission{User: u.Public(), Protocol: JSON,
		Container: fmt.Appendf(nil, `{"input":%q,"nonce":%d,"max_ledger_seq_no":%d}`, payload, nonce, maxLedger)}
	s.Sig = u.Sign(s.Container)
	return s
}

func pack(t testing.TB, origin key.Private, epoch, seq uint64, items ...Submission) *Bundle {
	t.Helper()
	parsed, errs := Check(items, 1, nil)
	if errs != nil {
		t.Fatal(errs)
	}
	b, err := Pack(origin, epoch, seq, items, parsed)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func many(t testing.TB, n, size int) []Submission {
	t.Helper()
	items := make([]Submission, n)
	for i := range items {
		items[i] = submit(user(t, byte(i%200)), uint64(i+1), 1000, strings.Repeat("x", size))
	}
	return items
}

func TestBundle(t *testing.T) {
	items := many(t, 300, 10)
	bs := []byte("\x2c\x00\x00\x00\x05input\x00\x00\x00\x00\x00\x00\x10nonce\x00\x01\x00\x00\x00")
	bs = append(bs, "\x10max_ledger_seq_no\x00\x05\x00\x00\x00\x00"...)
	bs[0] = byte(len(bs))
	items = append(items, Submission{User: user(t, 9).Public(), Container: bs, Protocol: BSON, Sig: user(t, 9).Sign(bs)})
	made := pack(t, user(t, 1), 5, 6, items...)
	for _, workers := range []int{0, 1, 2, 16} {
		got, err := DecodeBundle(bytes.Clone(made.Encoded()))
		if err != nil {
			t.Fatal(err)
		}
		if got.Verified() || got.Inputs() != nil {
			t.Fatal("verified before Verify")
		}
		if err := got.Verify(workers, nil); err != nil {
			t.Fatal(err)
		}
		if got.Origin != user(t, 1).Public() || got.Epoch != 5 || got.Seq != 6 || got.Digest() != made.Digest() || got.MaxLedger() != 1000 || made.MaxLedger() != 1000 {
			t.Fatalf("decoded %v", got)
		}
		for i, in := range got.Inputs() {
			want, err := items[i].Input()
			if err != nil {
				t.Fatal(err)
			}
			if in.User != want.User || in.Hash != want.Hash || in.Nonce != want.Nonce || !bytes.Equal(in.Payload, want.Payload) {
				t.Fatalf("input %d is %v, want %v", i, in, want)
			}
		}
	}
}

// repack signs items as a dishonest origin would, without checking them.
func repack(t *testing.T, items []Submission) *Bundle {
	t.Helper()
	parsed := make([]Input, len(items))
	for i := range parsed {
		parsed[i].User = items[i].User
	}
	b, err := Pack(user(t, 1), 5, 6, items, parsed)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = DecodeBundle(b.Encoded()); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBundleIsRefused(t *testing.T) {
	bad := many(t, 300, 10)
	bad[299].Sig[5] ^= 1
	if err := repack(t, bad).Verify(2, nil); !errors.Is(err, ErrBadSignature) || !strings.Contains(err.Error(), "item 299") {
		t.Errorf("bad signature: %v", err)
	}
	if err := repack(t, bad[299:]).Verify(2, nil); !errors.Is(err, ErrBadSignature) || !strings.Contains(err.Error(), "item 0") {
		t.Errorf("bad signature alone: %v", err)
	}
	u := user(t, 7)
	bad = many(t, 300, 10)
	bad[3].Container = []byte(`{"input":"a"}`)
	bad[3].User, bad[3].Sig = u.Public(), u.Sign(bad[3].Container)
	if err := repack(t, bad).Verify(1, nil); err == nil || !strings.Contains(err.Error(), "item 3: json input container: field nonce is missing") {
		t.Errorf("bad container: %v", err)
	}
	bad = many(t, 3, 10)
	bad[1].Protocol = BSON
	if err := repack(t, bad).Verify(1, nil); err == nil || !strings.Contains(err.Error(), "item 1: bson") {
		t.Errorf("wrong protocol: %v", err)
	}

	b := pack(t, user(t, 1), 5, 6, many(t, 3, 10)...)
	for _, at := range []int{0, 40, b.Size() - 1} {
		enc := bytes.Clone(b.Encoded())
		enc[at] ^= 1
		other, err := DecodeBundle(enc)
		if err != nil {
			continue
		}
		if err := other.Verify(1, nil); err == nil || !strings.Contains(err.Error(), "signature of origin") {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
	for n := range b.Size() {
		if _, err := DecodeBundle(b.Encoded()[:n]); err == nil {
			t.Fatalf("cut to %d of %d bytes and accepted", n, b.Size())
		}
	}
	if _, err := DecodeBundle(append(bytes.Clone(b.Encoded()), 0)); err == nil {
		t.Error("accepted with a byte more")
	}
	if _, err := DecodeBundle(make([]byte, MaxBundleBytes+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Error(err)
	}
}

func TestPackLimits(t *testing.T) {
	big := Submission{User: user(t, 1).Public(), Protocol: JSON, Container: make([]byte, MaxBundleBytes-BundleOverhead-ItemOverhead)}
	if n := Fit([]Submission{big}); n != 1 {
		t.Errorf("greatest container: %d fit", n)
	}
	if n := Fit([]Submission{big, big}); n != 1 {
		t.Errorf("two of the greatest container: %d fit", n)
	}
	big.Container = append(big.Container, 0)
	if n := Fit([]Submission{big}); n != 0 {
		t.Errorf("greater than the greatest container: %d fit", n)
	}
	if n := Fit(make([]Submission, MaxBundleItems+1)); n != MaxBundleItems {
		t.Errorf("%d items fit", n)
	}
	if _, err := Pack(user(t, 1), 1, 1, []Submission{big}, make([]Input, 1)); err == nil {
		t.Error("packed what does not fit")
	}
	if _, err := Pack(user(t, 1), 1, 1, nil, nil); err == nil {
		t.Error("packed nothing")
	}
}

func TestBundleSignatureIsNoText(t *testing.T) {
	if at := strings.IndexByte(bundleSignTag, 0xff); at < 0 || len(bundleSignTag) <= 40 {
		t.Errorf("tag %q could be a text or a hash that is signed elsewhere", bundleSignTag)
	}
}

func TestCheckNamesEachItem(t *testing.T) {
	items := many(t, 400, 5)
	items[0].Sig[0] ^= 1
	items[200].Container = []byte("{}")
	items[399].Sig = key.Signature{}
	for _, workers := range []int{1, 3} {
		parsed, errs := Check(items, workers, nil)
		for i, err := range errs {
			switch i {
			case 0, 399:
				if !errors.Is(err, ErrBadSignature) {
					t.Errorf("item %d: %v", i, err)
				}
			case 200:
				if err == nil || errors.Is(err, ErrBadSignature) {
					t.Errorf("item %d: %v", i, err)
				}
			default:
				if err != nil || parsed[i].Nonce != uint64(i+1) {
					t.Errorf("item %d: %v", i, err)
				}
				continue
			}
			if parsed[i].Nonce != 0 {
				t.Errorf("bad item %d has an input", i)
			}
		}
	}
	if parsed, errs := Check(nil, 4, nil); len(parsed) != 0 || errs != nil {
		t.Error("nothing is not fine")
	}
}

func TestPresence(t *testing.T) {
	origin, a, b := user(t, 1).Public(), user(t, 2).Public(), user(t, 3).Public()
	p, err := NewPresence(origin, []key.Public{b, a, b, a})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Users) != 2 || p.Users[0].Compare(p.Users[1]) >= 0 {
		t.Fatalf("users %v", p.Users)
	}
	got, err := DecodePresence(p.Encoded())
	if err != nil {
		t.Fatal(err)
	}
	if got.Origin != origin || got.Digest() != p.Digest() || len(got.Users) != 2 || got.Users[0] != p.Users[0] || got.Users[1] != p.Users[1] {
		t.Errorf("decoded %v", got)
	}
	other, err := NewPresence(a, p.Users)
	if err != nil {
		t.Fatal(err)
	}
	if other.Digest() == p.Digest() {
		t.Error("digest leaves out the origin")
	}
	c := user(t, 4).Public()
	more, err := NewPresence(a, []key.Public{c, b})
	if err != nil {
		t.Fatal(err)
	}
	if u := Union(p, more, more); len(u) != 3 || UserHash(u) != UserHash(Union(more, p)) || UserHash(u) == UserHash(p.Users) {
		t.Errorf("union %v", u)
	}
	if !UserHash(nil).IsZero() {
		t.Error("hash of no users is not zero")
	}

	swapped := bytes.Clone(p.Encoded())
	copy(swapped[37:], p.Users[1][:])
	copy(swapped[70:], p.Users[0][:])
	twice := bytes.Clone(p.Encoded())
	copy(twice[70:], p.Users[0][:])
	prefix := bytes.Clone(p.Encoded())
	prefix[0] = 0
	for name, enc := range map[string][]byte{"swapped": swapped, "twice": twice, "prefix": prefix, "short": p.Encoded()[:80], "empty": nil} {
		if _, err := DecodePresence(enc); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := NewPresence(origin, make([]key.Public, MaxPresence+1)); err != nil {
		t.Errorf("repetitions count: %v", err)
	}
	users := make([]key.Public, MaxPresence+1)
	for i := range users {
		users[i] = key.Public{key.Prefix, byte(i), byte(i >> 8), byte(i >> 16)}
	}
	if _, err := NewPresence(origin, users); err == nil {
		t.Error("too many users accepted")
	}
}

func FuzzDecodeBundle(f *testing.F) {
	f.Add(pack(f, user(f, 1), 5, 6, many(f, 3, 10)...).Encoded())
	f.Add(pack(f, user(f, 2), 0, 1, many(f, 1, 0)...).Encoded())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeBundle(bytes.Clone(b))
		if err != nil {
			return
		}
		if !bytes.Equal(got.Encoded(), b) {
			t.Fatal("encodes to other bytes")
		}
		if got.Verify(1, nil) == nil {
			again, err := Pack(user(t, 1), got.Epoch, got.Seq, got.Items, got.Inputs())
			if err != nil {
				t.Fatal(err)
			}
			if again.Origin == got.Origin && again.Digest() != got.Digest() {
				t.Fatal("packs to another digest")
			}
		}
	})
}

func FuzzDecodePresence(f *testing.F) {
	for _, n := range []byte{0, 1, 5} {
		var users []key.Public
		for i := range n {
			users = append(users, user(f, i).Public())
		}
		p, err := NewPresence(user(f, 1).Public(), users)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p.Encoded())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodePresence(b)
		if err != nil {
			return
		}
		again, err := NewPresence(got.Origin, got.Users)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Encoded(), b) || again.Digest() != got.Digest() {
			t.Fatal("encodes to other bytes")
		}
	})
}

func BenchmarkBundle(b *testing.B) {
	items := many(b, 256, 100)
	parsed, errs := Check(items, 1, nil)
	if errs != nil {
		b.Fatal(errs)
	}
	bundle := pack(b, user(b, 1), 1, 1, items...)
	b.Run("Pack256", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Pack(user(b, 1), 1, 1, items, parsed); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Decode256", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeBundle(bundle.Encoded()); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("Verify256/workers=%d", workers), func(b *testing.B) {
			for b.Loop() {
				bundle.inputs = nil
				if err := bundle.Verify(workers, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*256/b.Elapsed().Seconds(), "sigs/s")
		})
	}
}
