package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"

	"evernode/hotpocket/key"
)

// certificateLife is how long a certificate that we make is valid. Nobody
// checks its dates except tools that show them, so it must not run out.
const certificateLife = 10 * 365 * 24 * time.Hour

// Create makes the folder of a new node: fresh keys, a random contract id, a
// UNL of itself, and a certificate for users (section 3.1). dir may exist if it
// is empty. When it fails it leaves nothing behind.
func Create(dir string, now time.Time) (*Config, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("make a contract id: %w", err)
	}
	private, err := key.Generate()
	if err != nil {
		return nil, err
	}
	c := New(private, id.String())
	if err := c.CreateIn(dir, now); err != nil {
		return nil, err
	}
	return c, nil
}

// Newcomer returns the configuration of a new node that joins a contract of
// which it knows the id, addresses of peers and public keys of members, at least
// one of each. Until the node has joined, its UNL is these members, whom it
// trusts; everything else it learns from the others.
func Newcomer(contractID string, peers []string, trusted []key.Public) (*Config, error) {
	private, err := key.Generate()
	if err != nil {
		return nil, err
	}
	c := New(private, contractID)
	c.Contract.UNL = nil
	for _, k := range trusted {
		if !slices.Contains(c.Contract.UNL, k) { // nobody counts twice
			c.Contract.UNL = append(c.Contract.UNL, k)
		}
	}
	c.Mesh.KnownPeers = slices.Clone(peers)
	switch {
	case contractID == "":
		return nil, errors.New("a node that joins needs the contract's id")
	case len(peers) == 0:
		return nil, errors.New("a node that joins needs the address of at least one peer")
	case len(trusted) == 0:
		return nil, errors.New("a node that joins needs the public key of at least one member")
	}
	return c, c.Validate()
}

// Vacant reports, as an error, why no node can be made in dir.
func Vacant(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case err == nil && len(entries) > 0:
		return fmt.Errorf("%s is there already and is not empty; choose another folder or remove it", dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// CreateIn makes the folder of a node with this configuration, as Create does.
func (c *Config) CreateIn(dir string, now time.Time) (err error) {
	if err := Vacant(dir); err != nil {
		return err
	}
	_, err = os.Stat(dir)
	existed := err == nil
	// The folder's mode is the operator's choice when it was there already.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if !existed {
			os.RemoveAll(dir)
			return
		}
		for _, name := range []string{"cfg", "contract_fs", "ledger_fs", "log"} {
			os.RemoveAll(Layout(dir).join(name))
		}
	}()
	l := Layout(dir)
	for _, folder := range []string{l.join("cfg"), l.SeedState(), l.LedgerFS(), l.ContractLog()} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		// The state folder's mode is agreed on, so it must not depend on the
		// umask of whoever makes the node.
		if err := os.Chmod(folder, 0o755); err != nil {
			return err
		}
	}
	if err := writeCertificate(l, c.Node.PublicKey, now); err != nil {
		return err
	}
	// Last, because a folder with hp.cfg counts as a whole node's.
	return c.Save(dir)
}

// ErrLedgers is wrapped by the error of Rekey for a node that has ledgers, or
// has at least been started.
var ErrLedgers = errors.New("the node has been started and may have ledgers")

// Rekey gives the node in dir a new key pair and puts it in the place of the
// old one in the UNL (section 3.1). Other members must be told the new public
// key by other means. A certificate made for the old key is made anew; one that
// the operator installed stays. The node must not be running.
//
// The hp.cfg with the old key stays beside the new one as hp.cfg.before-rekey,
// or .before-rekey.2 and so on when there is one already: no private key is
// ever lost. Once there are ledgers they say who is a member, not hp.cfg, so
// that a node with a new key would be none; it then fails with ErrLedgers
// unless forced. A node that is not in the UNL of its hp.cfg, because it follows
// or is about to join, has no place to give up: it gets new keys at any time, and
// the UNL stays.
func Rekey(dir string, now time.Time, force bool) (c *Config, err error) {
	lock, err := Acquire(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if c, err = Load(dir); err != nil {
		return nil, err
	}
	ledgers, err := hasLedgers(dir)
	if err != nil {
		return nil, err
	}
	old := c.Node.PublicKey
	at := slices.Index(c.Contract.UNL, old)
	if at >= 0 && ledgers && !force {
		return nil, fmt.Errorf("%w in %s: ledgers name the members by their keys, and with a new key this node would be none of them; "+
			"when it has not closed a ledger yet, remove its ledger_fs first; to start the chain anew, "+
			"first remove contract_fs and ledger_fs on all members", ErrLedgers, dir)
	}
	private, err := key.Generate()
	if err != nil {
		return nil, err
	}
	c.Node.PrivateKey, c.Node.PublicKey = private, private.Public()
	if at >= 0 {
		c.Contract.UNL = slices.Clone(c.Contract.UNL)
		c.Contract.UNL[at] = private.Public()
	}
	if err := keepOld(dir); err != nil {
		return nil, err
	}
	if err := c.Save(dir); err != nil {
		return nil, err
	}
	if ownCertificate(Layout(dir), old) {
		if err := writeCertificate(Layout(dir), c.Node.PublicKey, now); err != nil {
			return nil, fmt.Errorf("the keys are changed but the certificate is not: %w", err)
		}
	}
	return c, nil
}

// hasLedgers reports whether a node in dir has ever kept a ledger or a promise.
// Without ledger_fs/store it has not; a file system's own folders in ledger_fs
// do not count.
func hasLedgers(dir string) (bool, error) {
	entries, err := os.ReadDir(filepath.Join(Layout(dir).LedgerFS(), "store"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look for ledgers: %w", err)
	}
	return len(entries) > 0, nil
}

// keepOld copies hp.cfg to the first name for files from before a change of
// keys that is free.
func keepOld(dir string) error {
	suffix := "before-rekey"
	for i := 2; ; i++ {
		_, err := os.Lstat(copyName(dir, suffix))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return fmt.Errorf("keep the old hp.cfg: %w", err)
		}
		suffix = fmt.Sprintf("before-rekey.%d", i)
	}
	_, err := KeepCopy(dir, suffix)
	return err
}

// writeCertificate makes a self-signed certificate for the user port, named
// after the node's key. ECDSA on P-256 is what every client and browser takes,
// and a handshake costs a tenth of RSA's.
func writeCertificate(l Layout, node key.Public, now time.Time) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a TLS key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("make a TLS certificate: %w", err)
	}
	template := x509.Certificate{
		SerialNumber: serial,
		// A common name has at most 64 characters, so the key's fixed first
		// byte is left out.
		Subject:               pkix.Name{CommonName: commonName(node)},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certificateLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		return fmt.Errorf("make a TLS certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("encode the TLS key: %w", err)
	}
	if err := WriteFile(l.TLSKey(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), privateMode); err != nil {
		return err
	}
	return WriteFile(l.TLSCert(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644)
}

func commonName(node key.Public) string { return node.String()[2:] }

// ownCertificate reports whether the certificate in the folder is missing or
// one that we made for that node.
func ownCertificate(l Layout, node key.Public) bool {
	text, err := os.ReadFile(l.TLSCert())
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return err == nil && cert.Subject.CommonName == commonName(node) &&
		cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}
