package key_test

import (
	"encoding/hex"
	"testing"

	"evernode/hotpocket/key"
)

func seeded(t *testing.T, b byte) key.Private {
	t.Helper()
	seed := make([]byte, key.SeedSize)
	for i := range seed {
		seed[i] = b
	}
	k, err := key.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The vectors are those of spec/hotpocket.md section 8.
func TestVectors(t *testing.T) {
	user, node := seeded(t, 0x2a), seeded(t, 1)
	if got, want := user.Public().String(), "ed197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61"; got != want {
		t.Errorf("user key %s, want %s", got, want)
	}
	if got, want := node.Public().String(), "ed8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"; got != want {
		t.Errorf("node key %s, want %s", got, want)
	}
	msg := []byte("00112233445566778899aabbccddeeff")
	sig := user.Sign(msg)
	if got, want := hex.EncodeToString(sig[:]), "2344e359cfc4aa83c616ccee63a5d991af847a104a65c8923c6f387e2a347c0cac782dfb7136dffb3610ecca890f592bf4b7b1508ab8383b69d6f29dc1277304"; got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
	if !user.Public().Verify(msg, sig[:]) {
		t.Error("own signature is not accepted")
	}
	again, err := key.ParsePrivate(user.Hex())
	if err != nil || again.Public() != user.Public() {
		t.Errorf("private key does not survive its text form: %v", err)
	}
}

func TestVerifyRefusesWhatWasNotSigned(t *testing.T) {
	k, other := seeded(t, 1), seeded(t, 2)
	msg := []byte("message")
	sig := k.Sign(msg)
	cache := key.NewCache(4)
	flipped := sig
	flipped[3] ^= 1
	cases := []struct {
		name string
		by   key.Public
		msg  string
		sig  []byte
		want bool
	}{
		{"right", k.Public(), "message", sig[:], true},
		{"other key", other.Public(), "message", sig[:], false},
		{"other message", k.Public(), "messagE", sig[:], false},
		{"flipped bit", k.Public(), "message", flipped[:], false},
		{"short", k.Public(), "message", sig[:63], false},
		{"empty", k.Public(), "message", nil, false},
		{"no prefix", key.Public{}, "message", sig[:], false},
	}
	batch, cached := key.NewBatch(len(cases)), cache.NewBatch(len(cases))
	for _, c := range cases {
		if got := c.by.Verify([]byte(c.msg), c.sig); got != c.want {
			t.Errorf("%s: Verify is %v", c.name, got)
		}
		if got := cache.Verify(c.by, []byte(c.msg), c.sig); got != c.want {
			t.Errorf("%s: Cache.Verify is %v", c.name, got)
		}
		batch.Add(c.by, []byte(c.msg), c.sig)
		cached.Add(c.by, []byte(c.msg), c.sig)
	}
	for i, got := range cached.Verify() {
		if got != cases[i].want {
			t.Errorf("%s: cached Batch.Verify is %v", cases[i].name, got)
		}
	}
	for i, got := range batch.Verify() {
		if got != cases[i].want {
			t.Errorf("%s: Batch.Verify is %v", cases[i].name, got)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := seeded(t, 1)
	for _, s := range []string{"", "ed", good.Public().String()[:64], "00" + good.Public().String()[2:], good.Public().String() + "00", "zz" + good.Public().String()[2:]} {
		if _, err := key.ParsePublic(s); err == nil {
			t.Errorf("public key %q is accepted", s)
		}
	}
	mixed := good.Hex()[:66] + seeded(t, 2).Hex()[66:]
	for _, s := range []string{"", good.Hex()[:128], "00" + good.Hex()[2:], mixed} {
		if _, err := key.ParsePrivate(s); err == nil {
			t.Error("a bad private key is accepted")
		}
	}
}
