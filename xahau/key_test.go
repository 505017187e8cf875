package xahau

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"evernode/xahau/field"
)

func TestKnownKeys(t *testing.T) {
	for _, c := range []struct{ seed, public, address string }{
		// The account that holds everything in a new ledger.
		{"snoPBrXtMeMyMHUVTgbuqAfg1SUTb", "0330E7FC9D56BB25D6893BA3F317AE5BCF33B3291BD63DB32654A313222F7FD020", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh"},
		{"sEdSKaCy2JT7JaM7v95H9SxkhP9wS2r", "ED01FA53FA5A7E77798F882ECE20B1ABC00BB358A9E55A202D0D0676BD0CE37A63", "rLUEXYuLiQptky37CqLcm9USQpPiz5rkpD"},
	} {
		s, err := ParseSeed(c.seed)
		if err != nil {
			t.Fatal(err)
		}
		k := s.KeyPair()
		if k.Public().String() != c.public || k.Account().String() != c.address || s.Secret() != c.seed {
			t.Errorf("%s: %s %s", c.seed, k.Public(), k.Account())
		}
		for _, text := range []string{c.public, k.Public().Base58(), k.Public().NodeBase58()} {
			if p, err := ParsePublicKey(text); err != nil || p != k.Public() {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
	if s := SeedFromPassphrase("masterpassphrase", Secp256k1); s.Secret() != "snoPBrXtMeMyMHUVTgbuqAfg1SUTb" {
		t.Errorf("masterpassphrase gives %s", s.Secret())
	}
	if AccountZero.String() != "rrrrrrrrrrrrrrrrrrrrrhoLvTp" || AccountOne.String() != "rrrrrrrrrrrrrrrrrrrrBZbvji" {
		t.Error(AccountZero, AccountOne)
	}
}

// Nothing that is printed by mistake contains a secret.
func TestSecretsAreNotPrinted(t *testing.T) {
	s := SeedFromPassphrase("secret", Ed25519)
	k := s.KeyPair()
	for _, v := range []any{s, &s, k, &k, struct{ A any }{s}, []KeyPair{k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			text := fmt.Sprintf(verb, v)
			entropy := s.Entropy()
			for _, secret := range []string{s.Secret(), k.Private(), k.Private()[2:], fmt.Sprint(entropy[:4])[1:8], fmt.Sprintf("0x%x, 0x%x", entropy[0], entropy[1])} {
				if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
					t.Errorf("%s of %T prints %s", verb, v, text)
				}
			}
		}
	}
	if _, err := ParseSeed(s.Secret() + "x"); err == nil || strings.Contains(err.Error(), s.Secret()) {
		t.Error(err)
	}
	if _, err := ParsePrivateKey("zz" + k.Private()); err == nil || strings.Contains(err.Error(), k.Private()) {
		t.Error(err)
	}
}

func TestWrongTexts(t *testing.T) {
	for _, s := range []string{"", "r", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTi", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyT", "0OIl", "snoPBrXtMeMyMHUVTgbuqAfg1SUTb", strings.Repeat("r", 200)} {
		if a, err := ParseAddress(s); err == nil {
			t.Errorf("%q is %s", s, a)
		}
		if x, err := ParseXAddress(s); err == nil {
			t.Errorf("%q is %s", s, x)
		}
	}
	for _, s := range []string{"", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "snoPBrXtMeMyMHUVTgbuqAfg1SUTc"} {
		if _, err := ParseSeed(s); err == nil {
			t.Errorf("%q is a seed", s)
		}
	}
	for _, s := range []string{"", "00", strings.Repeat("00", 33), "04" + strings.Repeat("11", 32), "02" + strings.Repeat("FF", 32), "nHB"} {
		if k, err := ParsePublicKey(s); err == nil {
			t.Errorf("%q is %s", s, k)
		}
	}
	for _, s := range []string{"", "00", strings.Repeat("00", 32), strings.Repeat("FF", 32), strings.Repeat("11", 34)} {
		if _, err := ParsePrivateKey(s); err == nil {
			t.Errorf("%q is a private key", s)
		}
	}
	for _, s := range []string{"", "X", "1/EVR", "1/EVR/r", "1/XAH/rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "x/EVR/rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "1/EVRS/rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "1.5", "100000000000000001"} {
		if a, err := ParseAmount(s); err == nil {
			t.Errorf("%q is %s", s, a)
		}
	}
}

func TestAmountText(t *testing.T) {
	for _, s := range []string{"0", "-5", "100000000000000000", "1.5/EVR/rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "-0.00000001/EVR/rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "1/a/b/rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "1/0158415500000000C1F76FF6ECB0BAC600000000/rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh"} {
		a, err := ParseAmount(s)
		if err != nil {
			if strings.Contains(s, "a/b") {
				continue // a slash is no character of a code
			}
			t.Error(err)
			continue
		}
		if a.String() != s {
			t.Errorf("%s is written %s", s, a)
		}
		j, err := a.MarshalJSON()
		var back Amount
		if err != nil || back.UnmarshalJSON(j) != nil || back != a {
			t.Errorf("%s is JSON %s is %s, %v", s, j, back, err)
		}
	}
}

func TestSignaturesAreStrict(t *testing.T) {
	d := DefaultDefinitions()
	k := SeedFromPassphrase("masterpassphrase", Secp256k1).KeyPair()
	tx := Payment(k.Account(), AccountOne, Drops(1))
	if err := d.CheckSignature(tx); !errors.Is(err, ErrUnsigned) {
		t.Error(err)
	}
	signed, err := d.Sign(tx, k)
	if err != nil {
		t.Fatal(err)
	}
	if tx.Has(field.TxnSignature) {
		t.Error("the transaction itself was changed")
	}
	// The same signature with the other S is valid elsewhere, but not here.
	sig := signed.Tx.Blob(field.TxnSignature)
	high := highS(t, sig)
	for name, s := range map[string][]byte{"high S": high, "none": nil, "cut": sig[:len(sig)-1], "longer": append(bytes.Clone(sig), 0)} {
		bad := signed.Tx.Clone()
		bad.Set(field.TxnSignature, Blob(s))
		if err := d.CheckSignature(bad); !errors.Is(err, ErrBadSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := signed.Tx.Clone()
	other.Set(field.Amount, Drops(2))
	if err := d.CheckSignature(other); !errors.Is(err, ErrBadSignature) {
		t.Error(err)
	}
	if id, err := d.TransactionID(signed.Tx); err != nil || id != signed.ID {
		t.Error(id, err)
	}
	if _, err := d.Sign(tx, KeyPair{}); err == nil {
		t.Error("no key signs")
	}
	if _, err := d.Combine(tx); err == nil {
		t.Error("nobody signs together")
	}
	e, err := d.MultiSign(tx, AccountOne, k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Combine(tx, e, e); err == nil {
		t.Error("one signs twice")
	}
}

// highS replaces S of a DER signature by the order of the curve minus S.
func highS(t *testing.T, sig []byte) []byte {
	t.Helper()
	order := unhex(t, "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141")
	r := sig[4 : 4+sig[3]]
	s := sig[6+sig[3]:]
	s = bytes.TrimLeft(s, "\x00")
	s = append(make([]byte, 32-len(s)), s...)
	borrow := 0
	for i := 31; i >= 0; i-- {
		v := int(order[i]) - int(s[i]) - borrow
		borrow = 0
		if v < 0 {
			v, borrow = v+256, 1
		}
		s[i] = byte(v)
	}
	s = append([]byte{0}, s...)
	body := append([]byte{2, byte(len(r))}, r...)
	body = append(append(body, 2, byte(len(s))), s...)
	return append([]byte{0x30, byte(len(body))}, body...)
}

func TestHookOn(t *testing.T) {
	all, err := HookOn()
	if err != nil {
		t.Fatal(err)
	}
	if all.String() != "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFBFFFFF" {
		t.Errorf("a hook on nothing has the mask %s", all)
	}
	mask, err := HookOn(TxInvoke, TxPayment, TxSetHook)
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range DefaultDefinitions().TransactionTypes() {
		want := typ == TxInvoke || typ == TxPayment || typ == TxSetHook
		if FiresOn(mask, typ) != want {
			t.Errorf("%d: %v", typ, !want)
		}
		if FiresOn(Hash256{}, typ) != (typ != TxSetHook) {
			t.Errorf("all zeros fires wrongly on %d", typ)
		}
		if FiresOn(all, typ) {
			t.Errorf("the mask of no types fires on %d", typ)
		}
	}
}

func TestMemosAndParameters(t *testing.T) {
	tx := Invoke(AccountOne, AccountZero, []byte{1})
	tx.AddMemo([]byte("a"), nil, []byte("c"))
	copied := tx.Clone()
	tx.AddMemo([]byte("d"), []byte("e"), nil)
	tx.AddHookParameter([]byte("n"), []byte("v"))
	if m := tx.Memos(); len(m) != 2 || string(m[0].Data) != "c" || m[0].Format != nil || string(m[1].Format) != "e" {
		t.Errorf("%v", m)
	}
	if len(copied.Memos()) != 1 {
		t.Error("a clone got a memo too")
	}
	if v, ok := tx.HookParameter([]byte("n")); !ok || string(v) != "v" {
		t.Error(v, ok)
	}
	if _, ok := tx.HookParameter([]byte("m")); ok {
		t.Error("a parameter from nowhere")
	}
}

func FuzzTexts(f *testing.F) {
	for _, s := range []string{"rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "snoPBrXtMeMyMHUVTgbuqAfg1SUTb", "XVLhHMPHU98es4dbozjVtdWzVrDjtV18pX8yuPT7y4xaEHi", "1.5/EVR/rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "0330E7FC9D56BB25D6893BA3F317AE5BCF33B3291BD63DB32654A313222F7FD020", "EVR", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseAddress(s); err == nil && a.String() != s {
			t.Errorf("address %q becomes %s", s, a)
		}
		if x, err := ParseXAddress(s); err == nil && x.String() != s {
			t.Errorf("X-address %q becomes %s", s, x)
		}
		if x, err := ParseSeed(s); err == nil && x.Secret() != s {
			t.Errorf("seed %q becomes %s", s, x.Secret())
		}
		if p, err := ParsePublicKey(s); err == nil && p.Base58() != s && p.NodeBase58() != s && !strings.EqualFold(p.String(), s) {
			t.Errorf("key %q becomes %s", s, p)
		}
		if a, err := ParseAmount(s); err == nil {
			if back, err := ParseAmount(a.String()); err != nil || back != a {
				t.Errorf("amount %q becomes %s becomes %s, %v", s, a, back, err)
			}
		}
		ParsePrivateKey(s)
		ParseHash256(s)
	})
}

func benchTx(b *testing.B) (*Definitions, KeyPair, *Object) {
	d := DefaultDefinitions()
	k := SeedFromPassphrase("masterpassphrase", Ed25519).KeyPair()
	tx := Payment(k.Account(), AccountOne, Drops(1))
	tx.Set(field.Fee, Drops(10))
	tx.Set(field.Sequence, Uint32(1))
	tx.Set(field.LastLedgerSequence, Uint32(100))
	tx.Set(field.NetworkID, Uint32(21338))
	tx.AddHookParameter(make([]byte, 32), make([]byte, 200))
	return d, k, tx
}

func BenchmarkEncode(b *testing.B) {
	d, k, tx := benchTx(b)
	signed, err := d.Sign(tx, k)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.AppendBinary(buf, signed.Tx); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	d, k, tx := benchTx(b)
	signed, err := d.Sign(tx, k)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Decode(signed.Blob); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJSON(b *testing.B) {
	d, _, tx := benchTx(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.JSON(tx); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	d, _, tx := benchTx(b)
	for _, kind := range []KeyType{Secp256k1, Ed25519} {
		k := SeedFromPassphrase("masterpassphrase", kind).KeyPair()
		b.Run(kind.String(), func(b *testing.B) {
			for b.Loop() {
				if _, err := d.Sign(tx, k); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	d, _, tx := benchTx(b)
	for _, kind := range []KeyType{Secp256k1, Ed25519} {
		signed, err := d.Sign(tx, SeedFromPassphrase("masterpassphrase", kind).KeyPair())
		if err != nil {
			b.Fatal(err)
		}
		b.Run(kind.String(), func(b *testing.B) {
			for b.Loop() {
				if err := d.CheckSignature(signed.Tx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
