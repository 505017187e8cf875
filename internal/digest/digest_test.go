package digest_test

import (
	"strings"
	"testing"

	"evernode/internal/digest"
)

func TestSumIsPlainBLAKE3(t *testing.T) {
	// The hash of nothing, from the BLAKE3 specification's test vectors.
	const empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
	if got := digest.Sum().String(); got != empty {
		t.Errorf("Sum() is %s", got)
	}
	if digest.Sum([]byte("ab"), []byte("c")) != digest.Sum([]byte("abc")) {
		t.Error("Sum depends on how its input is cut")
	}
}

func TestTaggedBindsTagAndLengths(t *testing.T) {
	seen := map[digest.Hash]string{}
	for name, h := range map[string]digest.Hash{
		"one part":    digest.Tagged("t", []byte("abc")),
		"two parts":   digest.Tagged("t", []byte("ab"), []byte("c")),
		"other cut":   digest.Tagged("t", []byte("a"), []byte("bc")),
		"empty part":  digest.Tagged("t", []byte("abc"), nil),
		"other tag":   digest.Tagged("ta", []byte("bc")),
		"only a tag":  digest.Tagged("tabc"),
		"plain hash":  digest.Sum([]byte("abc")),
		"tag in part": digest.Tagged("", []byte("t"), []byte("abc")),
	} {
		if other, twice := seen[h]; twice {
			t.Errorf("%s and %s have one hash", name, other)
		}
		seen[h] = name
	}
}

func TestParse(t *testing.T) {
	h := digest.Sum([]byte("x"))
	for _, s := range []string{h.String(), strings.ToUpper(h.String())} {
		if got, err := digest.Parse(s); err != nil || got != h {
			t.Errorf("Parse(%s) is %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "00", h.String() + "00", strings.Repeat("z", 64)} {
		if _, err := digest.Parse(s); err == nil {
			t.Errorf("Parse(%q) is accepted", s)
		}
	}
}
