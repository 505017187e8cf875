package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"evernode/hotpocket/key"
)

func TestCreateMakesAWholeNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "node")
	c, err := Create(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if string(loaded.Text()) != string(c.Text()) {
		t.Error("what was written is not what was returned")
	}
	if !c.Contract.Member(c.Node.PublicKey) || len(c.Contract.UNL) != 1 || len(c.Contract.ID) != 36 || c.Contract.ID[14] != '4' {
		t.Errorf("unl %v, id %q", c.Contract.UNL, c.Contract.ID)
	}
	l := Layout(dir)
	for path, mode := range map[string]fs.FileMode{
		l.ConfigFile():                        0o600,
		l.TLSKey():                            0o600,
		l.TLSCert():                           0o644,
		filepath.Join(l.Seed(), "state"):      fs.ModeDir | 0o755,
		filepath.Join(dir, "ledger_fs"):       fs.ModeDir | 0o755,
		filepath.Join(dir, "log", "contract"): fs.ModeDir | 0o755,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), mode)
		}
	}
	pair, err := tls.LoadX509KeyPair(l.TLSCert(), l.TLSKey())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != c.Node.PublicKey.String()[2:] || cert.NotAfter.Before(time.Now().AddDate(9, 0, 0)) {
		t.Errorf("certificate of %q until %v", cert.Subject.CommonName, cert.NotAfter)
	}
	if err := cert.VerifyHostname("localhost"); err != nil {
		t.Error(err)
	}
	if _, err := Create(dir, time.Now()); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("created over an existing node: %v", err)
	}
}

func TestCreateInAnEmptyFolder(t *testing.T) {
	dir := t.TempDir()
	if _, err := Create(dir, time.Now()); err != nil {
		t.Error(err)
	}
	if _, err := Create(filepath.Join(Layout(dir).ConfigFile(), "x"), time.Now()); err == nil {
		t.Error("created below a file")
	}
}

func TestRekey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	before, err := Create(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other := testKey(t, 9).Public()
	before.Contract.UNL = append(before.Contract.UNL, other)
	if err := before.Save(dir); err != nil {
		t.Fatal(err)
	}
	after, err := Rekey(dir, time.Now(), false)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Node.PublicKey != after.Node.PublicKey || after.Node.PublicKey == before.Node.PublicKey {
		t.Error("the key was not changed")
	}
	if loaded.Contract.Member(before.Node.PublicKey) || !loaded.Contract.Member(after.Node.PublicKey) || !loaded.Contract.Member(other) {
		t.Errorf("UNL %v", loaded.Contract.UNL)
	}
	if loaded.Contract.ID != before.Contract.ID {
		t.Error("the contract's id was changed")
	}
	if !ownCertificate(Layout(dir), after.Node.PublicKey) {
		t.Error("the certificate still names the old key")
	}

	// A node that only follows leaves the UNL alone, ledgers or not.
	loaded.Contract.UNL = []key.Public{other}
	if err := loaded.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(Layout(dir).LedgerFS(), "store", "journal"), 0o700); err != nil {
		t.Fatal(err)
	}
	last, err := Rekey(dir, time.Now(), false)
	if err != nil {
		t.Fatalf("rekey of a node outside its UNL: %v", err)
	}
	if last.Node.PublicKey == after.Node.PublicKey || !slices.Equal(last.Contract.UNL, []key.Public{other}) {
		t.Errorf("key %s, UNL %v", last.Node.PublicKey, last.Contract.UNL)
	}
}

// Once there are ledgers, a new key makes a node a stranger to its cluster.
func TestNewcomer(t *testing.T) {
	member := testKey(t, 9).Public()
	c, err := Newcomer("id", []string{"a:1"}, []key.Public{member})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "node")
	if err := c.CreateIn(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if err != nil || got.Contract.ID != "id" || !slices.Equal(got.Contract.UNL, []key.Public{member}) || !slices.Equal(got.Mesh.KnownPeers, []string{"a:1"}) ||
		got.Node.PublicKey == member {
		t.Errorf("%+v, %v", got, err)
	}
	if err := c.CreateIn(dir, time.Now()); err == nil {
		t.Error("a folder that is not empty was taken")
	}
	if c, err := Newcomer("id", []string{"a:1"}, []key.Public{member, member}); err != nil || len(c.Contract.UNL) != 1 {
		t.Errorf("a key given twice: %v", err)
	}
	for i, bad := range []func() (*Config, error){
		func() (*Config, error) { return Newcomer("", []string{"a:1"}, []key.Public{member}) },
		func() (*Config, error) { return Newcomer("id", nil, []key.Public{member}) },
		func() (*Config, error) { return Newcomer("id", []string{"a:1"}, nil) },
		func() (*Config, error) { return Newcomer("id", []string{"a"}, []key.Public{member}) },
	} {
		if _, err := bad(); err == nil {
			t.Errorf("number %d is accepted", i)
		}
	}
}

func TestRekeyRefusesANodeWithLedgers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	if _, err := Create(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	l := Layout(dir)
	if err := os.Mkdir(filepath.Join(l.LedgerFS(), "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Rekey(dir, time.Now(), false); err != nil {
		t.Fatalf("a file system's own folder counts as ledgers: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(l.LedgerFS(), "store", "journal"), 0o700); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(l.ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	_, err = Rekey(dir, time.Now(), false)
	if !errors.Is(err, ErrLedgers) || !strings.Contains(err.Error(), "remove contract_fs and ledger_fs on all members") {
		t.Errorf("rekey of a node with ledgers: %v", err)
	}
	if now, _ := os.ReadFile(l.ConfigFile()); string(now) != string(before) {
		t.Error("a refused rekey changed hp.cfg")
	}
	if _, err := Rekey(dir, time.Now(), true); err != nil {
		t.Errorf("forced: %v", err)
	}
}

// A private key is never lost, however often a node gets new ones.
func TestRekeyKeepsEveryOldFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	if _, err := Create(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	path := Layout(dir).ConfigFile()
	want := map[string]string{}
	for _, name := range []string{path + ".before-rekey", path + ".before-rekey.2", path + ".before-rekey.3"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want[name] = string(text)
		if _, err := Rekey(dir, time.Now(), false); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range want {
		got, err := os.ReadFile(name)
		if err != nil || string(got) != text {
			t.Errorf("%s is not the file from before: %v", name, err)
		}
		if info, err := os.Stat(name); err == nil && info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

// An operator's own certificate is no business of rekey.
func TestRekeyKeepsForeignCertificate(t *testing.T) {
	dir, elsewhere := filepath.Join(t.TempDir(), "node"), filepath.Join(t.TempDir(), "node")
	for _, d := range []string{dir, elsewhere} {
		if _, err := Create(d, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	foreign, err := os.ReadFile(Layout(elsewhere).TLSCert())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(Layout(dir).TLSCert(), foreign, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Rekey(dir, time.Now(), false); err != nil {
		t.Fatal(err)
	}
	if now, _ := os.ReadFile(Layout(dir).TLSCert()); string(now) != string(foreign) {
		t.Error("the foreign certificate was replaced")
	}
}

func TestLockKeepsOthersOut(t *testing.T) {
	dir := t.TempDir()
	lock, err := Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Acquire(dir)
	var inUse *InUseError
	if !errors.As(err, &inUse) {
		t.Fatalf("second lock: %v", err)
	}
	if inUse.PID != 0 && inUse.PID != os.Getpid() {
		t.Errorf("holder is process %d, want %d", inUse.PID, os.Getpid())
	}
	if pid := Holder(dir); pid != inUse.PID {
		t.Errorf("holder is process %d, but the error names %d", pid, inUse.PID)
	}
	// A child of the node, such as a contract, must not keep the lock alive.
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Skipf("no child process: %v", err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := Acquire(dir)
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	again.Release()
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("the lock left %v behind", entries)
	}
}

func TestSaveReplacesTheWholeFileOrNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	c, err := Create(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(Layout(dir).ConfigFile())
	c.User.Port = 0
	if err := c.Save(dir); err == nil || !strings.Contains(err.Error(), "user.port is 0") {
		t.Errorf("an invalid configuration was saved: %v", err)
	}
	if now, _ := os.ReadFile(Layout(dir).ConfigFile()); string(now) != string(before) {
		t.Error("the file was changed by a failed save")
	}
	c.User.Port = 8081
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(filepath.Join(dir, "cfg"))
	if len(entries) != 3 {
		t.Errorf("temporary files are left: %v", entries)
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "is not a node's folder") {
		t.Errorf("empty folder: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "cfg"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := Layout(dir).ConfigFile()
	if err := os.WriteFile(path, []byte("{\n\"a\""), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), path+": line 2, column 4: expected ':'") {
		t.Errorf("broken file: %v", err)
	}
	if err := os.WriteFile(path, make([]byte, MaxFileSize+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "more than the allowed") {
		t.Errorf("huge file: %v", err)
	}
}
