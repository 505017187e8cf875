package xahau

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"evernode/internal/npmtest"
	"evernode/xahau/field"
)

// The JavaScript libraries that Evernode's tools are made of are independent of
// this package: what both say of thousands of random objects must be the same.
const (
	accountlib = "xrpl-accountlib@9.0.1"
	xrpljs     = "xrpl@5.3.0"
)

const oracle = `
const lib = require("xrpl-accountlib");
const codec = require("xrpl-binary-codec-prerelease");
const keypairs = require("ripple-keypairs");
const address = require("ripple-address-codec");
const fs = require("fs");
const defs = new codec.XrplDefinitions(JSON.parse(fs.readFileSync(process.argv[2])));
codec.nativeAsset.set("XAH");
const ask = {
	encode: (q) => codec.encode(q.json, defs),
	decode: (q) => codec.decode(q.hex, defs),
	signing: (q) => codec.encodeForSigning(q.json, defs),
	multisigning: (q) => codec.encodeForMultisigning(q.json, q.account, defs),
	keys: (q) => {
		const k = keypairs.deriveKeypair(q.seed);
		return { public: k.publicKey, private: k.privateKey, address: keypairs.deriveAddress(k.publicKey), account: lib.derive.familySeed(q.seed).address };
	},
	sign: (q) => keypairs.sign(q.hex, q.private),
	verify: (q) => keypairs.verify(q.hex, q.signature, q.public),
	transaction: (q) => lib.sign(q.json, lib.derive.familySeed(q.seed), defs),
	multi: (q) => lib.sign(q.json, lib.derive.familySeed(q.seed).signAs(q.account), defs),
	combine: (q) => lib.sign(q.json.map((s) => ({ signedTransaction: s })), undefined, defs),
	xaddress: (q) => address.classicAddressToXAddress(q.account, q.tag === null ? false : q.tag, q.test),
	classic: (q) => address.xAddressToClassicAddress(q.x),
	seed: (q) => address.encodeSeed(Buffer.from(q.hex, "hex"), q.kind),
	nodepublic: (q) => address.encodeNodePublic(Buffer.from(q.hex, "hex")),
};
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
	let answer;
	try {
		const q = JSON.parse(line);
		answer = { result: ask[q.do](q) };
	} catch (e) {
		answer = { error: String(e && e.stack || e) };
	}
	process.stdout.write(JSON.stringify(answer) + "\n");
});
`

type npmOracle struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

func startOracle(t *testing.T) *npmOracle {
	t.Helper()
	modules := filepath.Join(npmtest.Install(t, accountlib), "node_modules")
	dir := t.TempDir()
	script, defs := filepath.Join(dir, "oracle.js"), filepath.Join(dir, "definitions.json")
	if err := os.WriteFile(script, []byte(oracle), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(defs, DefaultDefinitions().Source(), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", script, defs)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		kill := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("node: %v\n%s", err, &stderr)
		}
	})
	return &npmOracle{t, in, bufio.NewReaderSize(out, 1<<20)}
}

// ask sends questions at once and gives the answers into results.
func (o *npmOracle) ask(questions []map[string]any, answer func(i int, result json.RawMessage)) {
	o.t.Helper()
	go func() {
		e := json.NewEncoder(o.in)
		for _, q := range questions {
			if e.Encode(q) != nil {
				return
			}
		}
	}()
	for i, q := range questions {
		line, err := o.out.ReadBytes('\n')
		if err != nil {
			o.t.Fatal(err)
		}
		var a struct {
			Result json.RawMessage
			Error  string
		}
		if err := json.Unmarshal(line, &a); err != nil {
			o.t.Fatalf("%v: %s", err, line)
		}
		if a.Error != "" {
			text, _ := json.Marshal(q)
			o.t.Fatalf("the JavaScript library says of %s: %s", text, a.Error)
		}
		answer(i, a.Result)
	}
}

func text(t *testing.T, j json.RawMessage) string {
	t.Helper()
	var s string
	if err := json.Unmarshal(j, &s); err != nil {
		t.Fatalf("%v: %s", err, j)
	}
	return s
}

// jsObjects makes objects that the JavaScript codec can write too.
func jsObjects(seed uint64, n int) []*Object {
	r := newRandom(seed)
	r.plain = true
	// The JavaScript definitions have no name for two of these, and the codec
	// leaves out the account of the third.
	unnamed := []TransactionType{TxEnableAmendment, TxSetFee, TxUNLModify}
	var list []*Object
	transactions, entries := r.defs.TransactionTypes(), r.defs.EntryTypes()
	slices.Sort(transactions)
	slices.Sort(entries)
	for len(list) < n {
		switch r.IntN(3) {
		case 0:
			if t := transactions[r.IntN(len(transactions))]; TransactionFormat(t) != nil {
				list = append(list, r.transaction(t))
			}
		case 1:
			if t := entries[r.IntN(len(entries))]; EntryFormat(t) != nil {
				list = append(list, r.ledgerEntry(t))
			}
		default:
			list = append(list, r.object(0))
		}
		if n := len(list); n > 0 && slices.Contains(unnamed, list[n-1].TransactionType()) {
			list = list[:n-1]
		}
	}
	return list
}

func mustMap(t *testing.T, o *Object) map[string]any {
	t.Helper()
	m, err := DefaultDefinitions().Map(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNpmEncodesAsWeDo(t *testing.T) {
	d := DefaultDefinitions()
	o := startOracle(t)
	objects := jsObjects(10, 4000)
	var questions []map[string]any
	for _, x := range objects {
		questions = append(questions, map[string]any{"do": "encode", "json": mustMap(t, x)})
	}
	o.ask(questions, func(i int, result json.RawMessage) {
		b, err := d.Encode(objects[i])
		if err != nil {
			t.Fatal(err)
		}
		if want := text(t, result); upperHex(b) != want {
			j, _ := d.JSON(objects[i])
			t.Fatalf("%s\nis encoded as %X\nby npm as       %s", j, b, want)
		}
	})
}

func TestNpmDecodesWhatWeEncode(t *testing.T) {
	d := DefaultDefinitions()
	o := startOracle(t)
	objects := jsObjects(11, 3000)
	var questions []map[string]any
	for _, x := range objects {
		b, err := d.Encode(x)
		if err != nil {
			t.Fatal(err)
		}
		questions = append(questions, map[string]any{"do": "decode", "hex": upperHex(b)})
	}
	o.ask(questions, func(i int, result json.RawMessage) {
		back, err := d.ParseJSON(result)
		if err != nil {
			t.Fatalf("%v: %s", err, result)
		}
		if !back.Equal(objects[i]) {
			j, _ := d.JSON(objects[i])
			t.Fatalf("%s\nis decoded by npm as\n%s", j, result)
		}
	})
}

func TestNpmSignsTheSameData(t *testing.T) {
	d := DefaultDefinitions()
	o := startOracle(t)
	objects := jsObjects(12, 1000)
	signer := newRandom(13).account()
	var questions []map[string]any
	for _, x := range objects {
		x.Set(field.SigningPubKey, Blob{})
		m := mustMap(t, x)
		questions = append(questions, map[string]any{"do": "signing", "json": m}, map[string]any{"do": "multisigning", "json": m, "account": signer.String()})
	}
	o.ask(questions, func(i int, result json.RawMessage) {
		data, err := d.SigningData(objects[i/2])
		if i%2 == 1 {
			data, err = d.MultiSigningData(objects[i/2], signer)
		}
		if err != nil {
			t.Fatal(err)
		}
		if want := text(t, result); upperHex(data) != want {
			t.Fatalf("signing data is %X\nby npm %s", data, want)
		}
	})
}

func seeds(t *testing.T, n int) []Seed {
	t.Helper()
	var list []Seed
	for i := range n {
		s, err := NewSeed(rand.Reader, KeyType(i%2))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

func TestNpmKeysAndSignatures(t *testing.T) {
	o := startOracle(t)
	list := seeds(t, 300)
	message := []byte("a message of some length, neither short nor long")
	var questions []map[string]any
	for _, s := range list {
		k := s.KeyPair()
		signature, err := k.Sign(message)
		if err != nil {
			t.Fatal(err)
		}
		entropy := s.Entropy()
		questions = append(questions,
			map[string]any{"do": "keys", "seed": s.Secret()},
			map[string]any{"do": "sign", "hex": hex.EncodeToString(message), "private": k.Private()},
			map[string]any{"do": "verify", "hex": hex.EncodeToString(message), "signature": hex.EncodeToString(signature), "public": k.Public().String()},
			map[string]any{"do": "seed", "hex": hex.EncodeToString(entropy[:]), "kind": s.Type().String()},
			map[string]any{"do": "nodepublic", "hex": k.Public().String()})
	}
	o.ask(questions, func(i int, result json.RawMessage) {
		s := list[i/5]
		k := s.KeyPair()
		switch i % 5 {
		case 0:
			var keys struct{ Public, Private, Address, Account string }
			if err := json.Unmarshal(result, &keys); err != nil {
				t.Fatal(err)
			}
			if keys.Public != k.Public().String() || keys.Private != k.Private() || keys.Address != k.Account().String() || keys.Account != keys.Address {
				t.Fatalf("%s has %s and %s, by npm %s", s, k.Public(), k.Account(), result)
			}
			same, err := ParsePrivateKey(keys.Private)
			if err != nil || same.Public() != k.Public() {
				t.Fatalf("private key: %v", err)
			}
		case 1:
			signature := unhex(t, text(t, result))
			ours, err := k.Sign(message)
			if err != nil || !bytes.Equal(signature, ours) {
				t.Fatalf("signature %X, by npm %X, %v", ours, signature, err)
			}
			if !k.Public().Verify(message, signature) || k.Public().Verify(message[1:], signature) {
				t.Fatal("verification of npm's signature is wrong")
			}
		case 2:
			if string(result) != "true" {
				t.Fatalf("npm does not accept the signature of %s", k)
			}
		case 3:
			if text(t, result) != s.Secret() {
				t.Fatal("seed is written otherwise by npm")
			}
		case 4:
			back, err := ParsePublicKey(text(t, result))
			if err != nil || back != k.Public() || k.Public().NodeBase58() != text(t, result) {
				t.Fatalf("node key %s, by npm %s, %v", k.Public().NodeBase58(), result, err)
			}
		}
	})
}

func TestNpmXAddresses(t *testing.T) {
	o := startOracle(t)
	r := newRandom(14)
	var list []XAddress
	var questions []map[string]any
	for i := range 200 {
		x := XAddress{Account: r.account(), Test: i%2 == 0}
		var tag any
		if i%3 > 0 {
			x.HasTag, x.Tag = true, r.Uint32()
			tag = x.Tag
		}
		list = append(list, x)
		questions = append(questions,
			map[string]any{"do": "xaddress", "account": x.Account.String(), "tag": tag, "test": x.Test},
			map[string]any{"do": "classic", "x": x.String()})
	}
	o.ask(questions, func(i int, result json.RawMessage) {
		x := list[i/2]
		if i%2 == 0 {
			if s := text(t, result); s != x.String() {
				t.Fatalf("%s is %s by npm", x, s)
			}
			if back, err := ParseXAddress(x.String()); back != x || err != nil {
				t.Fatal(back, err)
			}
			return
		}
		want := fmt.Sprintf(`{"classicAddress":"%s","tag":%d,"test":%v}`, x.Account, x.Tag, x.Test)
		if !x.HasTag {
			want = fmt.Sprintf(`{"classicAddress":"%s","tag":false,"test":%v}`, x.Account, x.Test)
		}
		if string(result) != want {
			t.Fatalf("%s is %s by npm, want %s", x, result, want)
		}
	})
}

// signable is a transaction that accountlib signs as it is.
func signable(r *random, typ TransactionType, account AccountID) *Object {
	tx := r.transaction(typ)
	for _, c := range []field.Code{field.TxnSignature, field.Signers, field.SigningPubKey, field.PreviousTxnID, field.EmitDetails, field.TicketSequence} {
		tx.Delete(c)
	}
	tx.Set(field.Account, account)
	tx.Set(field.Sequence, Uint32(1+r.Uint32N(1<<30)))
	tx.Set(field.Fee, Drops(r.Int64N(1_000_000)))
	tx.Set(field.Flags, Uint32(0))
	tx.Set(field.NetworkID, Uint32(21338))
	return tx
}

func TestNpmSignsTransactionsAsWeDo(t *testing.T) {
	d := DefaultDefinitions()
	o := startOracle(t)
	r := newRandom(15)
	r.plain = true
	types := []TransactionType{
		TxPayment, TxAccountSet, TxTrustSet, TxURITokenMint, TxURITokenBuy, TxURITokenBurn, TxURITokenCreateSellOffer, TxInvoke, TxSetHook,
		TxSignerListSet, TxSetRegularKey, TxTicketCreate, TxOfferCreate, TxOfferCancel, TxCheckCreate, TxCheckCash, TxRemit,
	}
	list := seeds(t, 100)
	var txs []*Object
	var questions []map[string]any
	for i := range 500 {
		s := list[i%len(list)]
		tx := signable(r, types[i%len(types)], s.KeyPair().Account())
		txs = append(txs, tx)
		questions = append(questions, map[string]any{"do": "transaction", "json": mustMap(t, tx), "seed": s.Secret()})
	}
	o.ask(questions, func(i int, result json.RawMessage) {
		var theirs struct {
			SignedTransaction string
			ID                string
		}
		if err := json.Unmarshal(result, &theirs); err != nil {
			t.Fatal(err)
		}
		signed, err := d.Sign(txs[i], list[i%len(list)].KeyPair())
		if err != nil {
			t.Fatal(err)
		}
		if upperHex(signed.Blob) != theirs.SignedTransaction || signed.ID.String() != theirs.ID {
			back, err := d.Decode(unhex(t, theirs.SignedTransaction))
			a, _ := d.JSON(signed.Tx)
			b, _ := d.JSON(back)
			t.Fatalf("%v\nsigned: %s\nby npm: %s", err, a, b)
		}
		if err := d.CheckSignature(signed.Tx); err != nil {
			t.Fatal(err)
		}
	})
}

func TestNpmSignsTogetherAsWeDo(t *testing.T) {
	d := DefaultDefinitions()
	o := startOracle(t)
	r := newRandom(16)
	r.plain = true
	account := r.account()
	const signers = 4
	type signing struct {
		tx    *Object
		seeds []Seed
	}
	var list []signing
	var questions []map[string]any
	for range 60 {
		tx := signable(r, TxPayment, account)
		s := signing{tx, seeds(t, signers)}
		list = append(list, s)
		m := mustMap(t, tx)
		for _, seed := range s.seeds {
			questions = append(questions, map[string]any{"do": "multi", "json": m, "seed": seed.Secret(), "account": seed.KeyPair().Account().String()})
		}
	}
	var blobs []string
	o.ask(questions, func(i int, result json.RawMessage) {
		var theirs struct{ SignedTransaction string }
		if err := json.Unmarshal(result, &theirs); err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, theirs.SignedTransaction)
	})
	questions = nil
	for i := range list {
		questions = append(questions, map[string]any{"do": "combine", "json": blobs[i*signers : (i+1)*signers]})
	}
	o.ask(questions, func(i int, result json.RawMessage) {
		var elements []Element
		for _, seed := range list[i].seeds {
			k := seed.KeyPair()
			e, err := d.MultiSign(list[i].tx, k.Account(), k)
			if err != nil {
				t.Fatal(err)
			}
			elements = append(elements, e)
		}
		signed, err := d.Combine(list[i].tx, elements...)
		if err != nil {
			t.Fatal(err)
		}
		var theirs struct{ SignedTransaction, ID string }
		if err := json.Unmarshal(result, &theirs); err != nil {
			t.Fatal(err)
		}
		if upperHex(signed.Blob) != theirs.SignedTransaction || signed.ID.String() != theirs.ID {
			t.Fatalf("signed together: %X\nby npm %s", signed.Blob, theirs.SignedTransaction)
		}
		if err := d.CheckSignature(signed.Tx); err != nil {
			t.Fatal(err)
		}
	})
}

// The current library of the XRP Ledger, by its own definitions, for what both
// ledgers have in common.
func TestXrpljsHashesAsWeDo(t *testing.T) {
	modules := filepath.Join(npmtest.Install(t, xrpljs), "node_modules")
	d := DefaultDefinitions()
	r := newRandom(17)
	seed := seeds(t, 2)
	var in strings.Builder
	var want []string
	for i := range 200 {
		tx := signable(r, []TransactionType{TxTrustSet, TxAccountSet, TxTicketCreate, TxOfferCancel, TxCheckCancel}[i%5], seed[i%2].KeyPair().Account())
		for _, c := range []field.Code{field.HookParameters, field.FirstLedgerSequence, field.OfferID, field.HookStateScale, field.OperationLimit, field.LimitAmount, field.AccountTxnID} {
			tx.Delete(c)
		}
		if tx.TransactionType() == TxTrustSet {
			limit := Issued(r.float(), MustCurrency("EVR"), r.account())
			if limit.Signum() < 0 {
				limit = limit.Negate()
			}
			tx.Set(field.LimitAmount, limit)
		}
		signed, err := d.Sign(tx, seed[i%2].KeyPair())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&in, "%X\n", signed.Blob)
		want = append(want, signed.ID.String())
	}
	script := `
const xrpl = require("xrpl");
const lines = require("fs").readFileSync(0, "utf8").trim().split("\n");
for (const l of lines) {
	const tx = xrpl.decode(l);
	if (xrpl.encode(tx) !== l) throw new Error("encodes otherwise: " + l);
	if (!xrpl.verifySignature(l)) throw new Error("does not accept the signature: " + l);
	console.log(xrpl.hashes.hashSignedTx(l));
}`
	cmd := exec.CommandContext(t.Context(), "node", "-e", script)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	cmd.Stdin = strings.NewReader(in.String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	if got := strings.Fields(string(out)); !slices.Equal(got, want) {
		t.Errorf("hashes differ: %v, want %v", got, want)
	}
}
