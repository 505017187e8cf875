package hotpocket

import (
	"bytes"
	"testing"

	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

func testNPL(t testing.TB) (nplMessage, key.Private) {
	t.Helper()
	k := seededKey(t, 3)
	m := nplMessage{author: k.Public(), ledger: digest.Sum([]byte("ledger")), seq: 9, packet: []byte("hello")}
	m.sig = k.Sign(m.signed("contract"))
	return m, k
}

func TestNPLMessage(t *testing.T) {
	m, k := testNPL(t)
	got, err := decodeNPL(m.encode())
	if err != nil {
		t.Fatal(err)
	}
	if got.author != m.author || got.ledger != m.ledger || got.seq != m.seq || !bytes.Equal(got.packet, m.packet) || got.sig != m.sig {
		t.Errorf("decoded %+v, want %+v", got, m)
	}
	for name, change := range map[string]func(*nplMessage){
		"ledger": func(m *nplMessage) { m.ledger[0]++ },
		"number": func(m *nplMessage) { m.seq++ },
		"packet": func(m *nplMessage) { m.packet = []byte("hellO") },
	} {
		x := got
		change(&x)
		if k.Public().Verify(x.signed("contract"), x.sig[:]) {
			t.Errorf("the signature does not cover the %s", name)
		}
	}
	if k.Public().Verify(got.signed("other contract"), got.sig[:]) {
		t.Error("the signature holds for another contract")
	}
}

func FuzzDecodeNPL(f *testing.F) {
	m, _ := testNPL(f)
	f.Add(m.encode())
	f.Add(m.encode()[:70])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeNPL(b)
		if err == nil && !bytes.Equal(m.encode(), b) {
			t.Error("decoding and encoding changes the message")
		}
	})
}
