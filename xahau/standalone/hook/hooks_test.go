package hook

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
)

// accepts runs a test hook, which checks a function by itself and says in its
// reason what is wrong.
func accepts(t *testing.T, m *Machine, name string, change ...func(*scene)) (*scene, *Result) {
	t.Helper()
	s := newScene(t, wasm(t, name))
	for _, f := range change {
		f(s)
	}
	r := s.run(t, m)
	if r.Exit != Accept {
		t.Fatalf("%s.c:%d: %v: %s", name, r.Code, r.Exit, r.Reason)
	}
	if string(r.Reason) != "ok" {
		t.Errorf("%s.c accepted with %q", name, r.Reason)
	}
	if r.Instructions == 0 {
		t.Errorf("%s.c took no instructions", name)
	}
	return s, r
}

func param(name, value string) func(*scene) {
	return func(s *scene) { s.call.Params[name] = []byte(value) }
}

func mode(m Mode) func(*scene) {
	return func(s *scene) { s.call.Mode = m }
}

// written gives the state that a run wrote under a key.
func (s *scene) written(t *testing.T, key string) []byte {
	t.Helper()
	for _, c := range s.call.States.Changes() {
		if c.Account == own && c.Namespace == ownSpace && c.Key == stateKey([]byte(key)) {
			return c.Value
		}
	}
	t.Fatalf("no state %q was written", key)
	return nil
}

// special are the functions whose hooks need more than the scene, and a test here
// that gives it.
var special = map[string]func(*testing.T, *Machine){
	"_g":              testGuard,
	"accept":          testAccept,
	"rollback":        testRollback,
	"util_verify":     testVerify,
	"util_keylet":     testKeylets,
	"etxn_nonce":      testEtxnNonce,
	"etxn_details":    testEtxnDetails,
	"emit":            testEmit,
	"ledger_nonce":    testLedgerNonce,
	"hook_again":      testHookAgain,
	"hook_param_set":  testParamSet,
	"hook_skip":       testSkip,
	"trace":           testTrace,
	"otxn_burden":     testEmitted,
	"otxn_generation": testEmitted,
	"otxn_id":         testOtxnID,
	"meta_slot":       testMeta,
	"xpop_slot":       testXpop,
	"state_set":       testStateSet,
}

// Every function of the Hook API has a test hook, written in C, that covers its
// results, its errors and its bounds.
func TestFunctions(t *testing.T) {
	m := newMachine(t, Config{})
	list := functions()
	if len(list) != 74 {
		t.Errorf("%d functions instead of 74", len(list))
	}
	for _, f := range list {
		t.Run(f.name, func(t *testing.T) {
			name := strings.TrimPrefix(f.name, "_")
			code := wasm(t, name)
			if _, err := m.Validate(ctx, code); err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(code, append([]byte{byte(len(f.name))}, f.name...)) {
				t.Fatalf("%s.wasm does not import %s", name, f.name)
			}
			if test := special[f.name]; test != nil {
				test(t, m)
				if f.name == "otxn_burden" || f.name == "otxn_generation" {
					accepts(t, m, name)
				}
				return
			}
			accepts(t, m, name)
		})
	}
}

func testGuard(t *testing.T, m *Machine) {
	accepts(t, m, "g", param("MODE", "0"))
	for _, how := range []string{"1", "2"} {
		s := newScene(t, wasm(t, "g"))
		param("MODE", how)(s)
		r := s.run(t, m)
		if r.Exit != Rollback || r.Code != int64(GuardViolation) || len(r.Reason) != 0 {
			t.Errorf("mode %s: %v %d %q", how, r.Exit, r.Code, r.Reason)
		}
		if r.ReturnCode() != 0x8000000000000010 {
			t.Errorf("return code %x", r.ReturnCode())
		}
	}
}

func testAccept(t *testing.T, m *Machine) {
	s := newScene(t, wasm(t, "accept"))
	r := s.run(t, m)
	if r.Exit != Accept || r.Code != 1 || len(r.Reason) != 256 {
		t.Errorf("%v %d %q", r.Exit, r.Code, r.Reason)
	}
}

func testRollback(t *testing.T, m *Machine) {
	s := newScene(t, wasm(t, "rollback"))
	r := s.run(t, m)
	if r.Exit != Rollback || r.Code != -7 || len(r.Reason) != 0 || r.ReturnCode() != 1<<63+7 {
		t.Errorf("%v %d %q", r.Exit, r.Code, r.Reason)
	}
	s = newScene(t, wasm(t, "rollback"))
	param("MODE", "1")(s)
	r = s.run(t, m)
	if r.Exit != Rollback || r.Code != 123456789012 || string(r.Reason) != "wide" {
		t.Errorf("%v %d %q", r.Exit, r.Code, r.Reason)
	}
}

// highS gives the other signature that is valid for the same message.
func highS(t *testing.T, der []byte) []byte {
	t.Helper()
	rLen := int(der[3])
	s := new(secp256k1.ModNScalar)
	s.SetByteSlice(der[6+rLen:])
	b := s.Negate().Bytes()
	out := append([]byte{}, der[2:4+rLen]...)
	if b[0]&0x80 == 0 {
		t.Fatal("the signature was high already")
	}
	out = append(append(out, 2, 33, 0), b[:]...)
	return append([]byte{0x30, byte(len(out))}, out...)
}

func testVerify(t *testing.T, m *Machine) {
	ed := xahau.SeedFromPassphrase("one", xahau.Ed25519).KeyPair()
	ec := xahau.SeedFromPassphrase("two", xahau.Secp256k1).KeyPair()
	msg := []byte("a message")
	edSig, err := ed.Sign(msg)
	if err != nil {
		t.Fatal(err)
	}
	ecSig, err := ec.Sign(msg)
	if err != nil {
		t.Fatal(err)
	}
	edKey, ecKey := ed.Public(), ec.Public()
	accepts(t, m, "util_verify", param("ED", string(edKey[:])), param("EDSIG", string(edSig)),
		param("EC", string(ecKey[:])), param("ECSIG", string(ecSig)), param("ECHIGH", string(highS(t, ecSig))))
}

func testKeylets(t *testing.T, m *Machine) {
	s, _ := accepts(t, m, "util_keylet")
	h := fill32(0x77)
	five := keylet.Seq(5)
	eur := xahau.MustCurrency("EUR")
	book := keylet.Keylet{Type: xahau.EntryDirectoryNode}
	for name, k := range map[string]keylet.Keylet{
		"hook":               keylet.Hook(own),
		"state":              keylet.HookState(own, h, ownSpace),
		"account":            keylet.Account(own),
		"amendments":         keylet.Amendments(),
		"child":              {Type: 0x1cd2, Index: h},
		"skip":               keylet.SkipList(),
		"skip at":            keylet.SkipListOf(1 << 20),
		"fees":               keylet.Fees(),
		"negative unl":       keylet.NegativeUNL(),
		"line":               keylet.Line(own, sender, eur),
		"line the other way": keylet.Line(own, sender, eur),
		"offer":              keylet.Offer(own, five),
		"offer by nonce":     keylet.Offer(own, keylet.Nonce(h)),
		"quality":            keylet.Quality(book, 0x0102030405060708),
		"emitted dir":        keylet.EmittedDirectory(),
		"signers":            keylet.SignerList(own),
		"check":              keylet.Check(own, five),
		"deposit preauth":    keylet.DepositPreauth(own, sender),
		"unchecked":          {Index: h},
		"owner dir":          keylet.OwnerDirectory(own),
		"page":               keylet.Page(h, 1<<32+2),
		"page 0":             {Type: xahau.EntryDirectoryNode, Index: h},
		"escrow":             keylet.Escrow(own, five),
		"paychan":            keylet.PayChannel(own, sender, five),
		"paychan by nonce":   keylet.PayChannel(own, sender, keylet.Nonce(h)),
		"emitted txn":        keylet.EmittedTxn(h),
		"nft offer":          keylet.NFTokenOffer(own, five),
		"definition":         keylet.HookDefinition(h),
		"state dir":          keylet.HookStateDirectory(own, ownSpace),
	} {
		if want, got := k.Bytes(), s.written(t, name); !bytes.Equal(got, want[:]) {
			t.Errorf("%s: %x, want %x", name, got, want)
		}
	}
}

func testEtxnNonce(t *testing.T, m *Machine) {
	s, _ := accepts(t, m, "etxn_nonce")
	want := func(counter uint16, flags uint32) xahau.Hash256 {
		return xahau.Sha512Half([]byte("ETX\x00"), s.c.Tx.id[:], be16(counter), own[:], s.call.Hash[:], be32(flags))
	}
	// Position 2, strong.
	if w := want(0, 2<<2|2); !bytes.Equal(s.written(t, "first"), w[:]) {
		t.Error("another nonce than the network's")
	}
	s, _ = accepts(t, m, "etxn_nonce", mode(Weak))
	if w := want(0, 2<<2); !bytes.Equal(s.written(t, "first"), w[:]) {
		t.Error("another nonce than the network's in a weak run")
	}
}

func testEtxnDetails(t *testing.T, m *Machine) {
	s, _ := accepts(t, m, "etxn_details")
	b := s.written(t, "details")
	nonce := xahau.Sha512Half([]byte("ETX\x00"), s.c.Tx.id[:], be16(0), own[:], s.call.Hash[:], be32(2<<2|2))
	o, err := defs.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	d := o.Object(field.EmitDetails)
	if d.Uint32(field.EmitGeneration) != 1 || d.Uint64(field.EmitBurden) != 3 || d.Hash(field.EmitParentTxnID) != s.c.Tx.id ||
		d.Hash(field.EmitNonce) != nonce || d.Hash(field.EmitHookHash) != s.call.Hash || d.Len() != 5 {
		t.Errorf("details %x", b)
	}
	s, _ = accepts(t, m, "etxn_details", param("CBAK", "1"), func(s *scene) { s.call.HasCbak = true })
	if o, err = defs.Decode(s.written(t, "details")); err != nil {
		t.Fatal(err)
	}
	if d = o.Object(field.EmitDetails); d.Account(field.EmitCallback) != own || d.Len() != 6 {
		t.Errorf("details with callback %v", d)
	}
}

func testEmit(t *testing.T, m *Machine) {
	s, r := accepts(t, m, "emit")
	if len(r.Emitted) != 2 {
		t.Fatalf("%d emitted", len(r.Emitted))
	}
	for i, key := range []string{"id", "second"} {
		e := r.Emitted[i]
		o, err := defs.Decode(e.Tx)
		if err != nil {
			t.Fatal(err)
		}
		again := encode(t, o)
		if !bytes.Equal(again, e.Tx) {
			t.Errorf("transaction %d is not in canonical form", i)
		}
		if xahau.BlobID(e.Tx) != e.ID || !bytes.Equal(s.written(t, key), e.ID[:]) {
			t.Errorf("transaction %d has another id", i)
		}
		if o.Object(field.EmitDetails).Hash(field.EmitNonce) != e.Nonce {
			t.Errorf("transaction %d has another nonce", i)
		}
		if o.Account(field.Account) != own || o.Account(field.Destination) != sender {
			t.Errorf("transaction %d goes from %s to %s", i, o.Account(field.Account), o.Account(field.Destination))
		}
	}
	// A hook that may emit everything but payments.
	s = newScene(t, wasm(t, "emit"))
	s.call.CanEmit = &xahau.Hash256{31: 1}
	if r := s.run(t, m); r.Exit != Rollback || !strings.HasSuffix(string(r.Reason), "== 32") || len(r.Emitted) != 0 {
		t.Errorf("%v %s, %d emitted", r.Exit, r.Reason, len(r.Emitted))
	}
	// The tenth generation is not allowed.
	s = newScene(t, wasm(t, "emit"))
	emitted(9, 1)(s)
	if r := s.run(t, m); r.Exit != Rollback {
		t.Errorf("%v %s", r.Exit, r.Reason)
	}
}

func testLedgerNonce(t *testing.T, m *Machine) {
	s, _ := accepts(t, m, "ledger_nonce")
	h := s.c.Header
	want := xahau.Sha512Half([]byte("NCE\x00"), be32(h.Seq), be32(h.ParentCloseTime), h.ParentHash[:], s.c.Tx.id[:], be16(0), own[:])
	if !bytes.Equal(s.written(t, "first"), want[:]) {
		t.Error("another nonce than the network's")
	}
}

func testHookAgain(t *testing.T, m *Machine) {
	if _, r := accepts(t, m, "hook_again"); !r.Again || r.Flags() != 5 {
		t.Error("the result does not ask for another run")
	}
	for _, how := range []Mode{Weak, Again} {
		if _, r := accepts(t, m, "hook_again", mode(how)); r.Again || r.Flags() != 0 {
			t.Error("the result of a weak run asks for another")
		}
	}
}

func testParamSet(t *testing.T, m *Machine) {
	s, r := accepts(t, m, "hook_param_set")
	got := r.Overrides[fill32(0xa0)]
	if string(got["P"]) != "again" || got["GONE"] == nil && len(got) != 4 || len(got["GONE"]) != 0 || string(got["Q"]) != "value" {
		t.Errorf("overrides %q", got)
	}
	if string(r.Overrides[s.call.Hash]["OVER"]) != "new" || string(r.Overrides[s.call.Hash]["P1"]) != "mine" {
		t.Errorf("own overrides %q", r.Overrides[s.call.Hash])
	}
	if len(s.call.Overrides) != 1 || len(s.call.Overrides[s.call.Hash]) != 3 {
		t.Error("the run changed the overrides that it was given")
	}
}

func testSkip(t *testing.T, m *Machine) {
	s, r := accepts(t, m, "hook_skip")
	want := []xahau.Hash256{fill32(0xa0), s.call.Hash}
	slices.SortFunc(want, xahau.Hash256.Compare)
	if !slices.Equal(r.Skips, want) {
		t.Errorf("skips %v", r.Skips)
	}
}

func testTrace(t *testing.T, m *Machine) {
	_, quiet := accepts(t, m, "trace")
	l := &lines{}
	loud := newMachine(t, Config{Log: slog.New(l)})
	for _, name := range []string{"trace", "trace_num", "trace_float"} {
		_, r := accepts(t, loud, name)
		if name == "trace" && r.Instructions != quiet.Instructions {
			t.Error("listening changes the run")
		}
	}
	want := []string{
		"hook trace message=hex data=DEADBEEF", "hook trace message=text data=hello", "hook trace message=wide data=wide",
		"hook trace message=ended data=by zero", "hook trace message= data=",
		"hook trace message=number number=-123456789012", "hook trace message= number=5",
		"hook trace message=one float=1", "hook trace message=zero float=0", "hook trace message=invalid float=xfl(0xfffffffffffffffb)",
	}
	if !slices.Equal(l.all, want) {
		t.Errorf("%s", strings.Join(l.all, "\n"))
	}
}

// emitted makes the transaction one that a hook emitted.
func emitted(generation uint32, burden uint64) func(*scene) {
	return func(s *scene) {
		s.call.Params["EMITTED"] = []byte("1")
		f := payment()
		f[field.EmitDetails] = xahau.NewObject(fields{field.EmitGeneration: xahau.Uint32(generation), field.EmitBurden: xahau.Uint64(burden),
			field.EmitParentTxnID: fill32(1), field.EmitNonce: fill32(2), field.EmitHookHash: s.call.Hash, field.EmitCallback: own})
		raw, err := defs.Encode(xahau.NewObject(f))
		if err != nil {
			panic(err)
		}
		if s.c.Tx, err = NewTransaction(raw, xahau.BlobID(raw)); err != nil {
			panic(err)
		}
	}
}

func testEmitted(t *testing.T, m *Machine) {
	for _, name := range []string{"otxn_burden", "otxn_generation"} {
		accepts(t, m, name, emitted(2, 3))
	}
}

func testOtxnID(t *testing.T, m *Machine) {
	s, _ := accepts(t, m, "otxn_id")
	if !bytes.Equal(s.written(t, "id"), s.c.Tx.id[:]) {
		t.Error("another id")
	}
}

func metadata(t *testing.T) []byte {
	t.Helper()
	return encode(t, xahau.NewObject(fields{field.TransactionResult: xahau.Uint8(0), field.TransactionIndex: xahau.Uint32(3), field.AffectedNodes: xahau.Array{
		element(field.ModifiedNode, fields{field.LedgerEntryType: xahau.Uint16(xahau.EntryAccountRoot), field.LedgerIndex: fill32(5)}),
	}}))
}

func testMeta(t *testing.T, m *Machine) {
	accepts(t, m, "meta_slot")
	for _, how := range []Mode{Weak} {
		accepts(t, m, "meta_slot", mode(how), func(s *scene) { s.c.Meta = metadata(t) })
	}
}

func importOf(t *testing.T, blob string) *Transaction {
	return transaction(t, fields{field.TransactionType: xahau.Uint16(xahau.TxImport), field.Account: sender, field.Blob: xahau.Blob(blob),
		field.Fee: xahau.Drops(12), field.Sequence: xahau.Uint32(7), field.SigningPubKey: xahau.Blob{}})
}

func testXpop(t *testing.T, m *Machine) {
	accepts(t, m, "xpop_slot")
	tx, meta := hex.EncodeToString(encode(t, xahau.NewObject(payment()))), strings.ToUpper(hex.EncodeToString(metadata(t)))
	proof := func(tx, meta string) string {
		b, err := json.Marshal(map[string]any{"ledger": map[string]any{}, "transaction": map[string]any{"blob": tx, "meta": meta}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	accepts(t, m, "xpop_slot", param("IMPORT", "1"), func(s *scene) { s.c.Tx = importOf(t, proof(tx, meta)) })
	for _, bad := range []string{"", "{}", "[1]", proof(tx, ""), proof("", meta), proof("xx", meta), proof(tx[2:], meta), proof(tx, meta[:len(meta)-2])} {
		accepts(t, m, "xpop_slot", param("BAD", "1"), func(s *scene) { s.c.Tx = importOf(t, bad) })
	}
}

func testStateSet(t *testing.T, m *Machine) {
	s, r := accepts(t, m, "state_set")
	// The first change of an account is not counted.
	if n := len(s.call.States.Changes()); n != 256 || r.StateChanges != 255 {
		t.Errorf("%d changes, %d counted", n, r.StateChanges)
	}
	if string(s.written(t, "abc")) != "other" || len(s.written(t, "number")) != 0 {
		t.Error("other changes")
	}
	s, _ = accepts(t, m, "state_set", param("POOR", "1"), func(s *scene) { s.w.account(t, own, 2_600_000, 3) })
	if n := len(s.call.States.Changes()); n != 5 || string(s.written(t, "key")) != "again" {
		t.Errorf("%d changes", n)
	}
	if n := len(newSceneStates(t, m, 1_799_999)); n != 0 {
		t.Errorf("%d changes without reserve", n)
	}
}

// newSceneStates runs the hook on an account with so many drops.
func newSceneStates(t *testing.T, m *Machine, drops int64) []StateChange {
	t.Helper()
	s := newScene(t, wasm(t, "state_set"))
	s.w.account(t, own, drops, 3)
	if r := s.run(t, m); r.Exit != Rollback || r.Code == 0 {
		t.Errorf("%v %d", r.Exit, r.Code)
	}
	return s.call.States.Changes()
}

// Changes come in the order in which the network writes them.
func TestChangesInOrder(t *testing.T) {
	m := newMachine(t, Config{})
	s, _ := accepts(t, m, "state_foreign_set")
	var all []string
	for _, c := range s.call.States.Changes() {
		all = append(all, fmt.Sprintf("%x %x %s=%s", c.Account[0], c.Namespace[0], bytes.Trim(c.Key[:], "\x00"), c.Value))
	}
	want := []string{"11 5a k=mine", "11 5c k=mine", "33 5b f=new", "33 5b g="}
	if !slices.Equal(all, want) {
		t.Errorf("%q", all)
	}
}

func TestReturnCode(t *testing.T) {
	for code, want := range map[int64]uint64{0: 0, 5: 5, -1: 0x8000000000000001, -16: 0x8000000000000010} {
		if got := (&Result{Code: code}).ReturnCode(); got != want {
			t.Errorf("%d: %x", code, got)
		}
	}
	if (&Result{Mode: Callback}).Flags() != 2 {
		t.Error("flags of a callback")
	}
}
