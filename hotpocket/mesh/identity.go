package mesh

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"

	"evernode/hotpocket/key"
)

// protocolName is offered and required in TLS's ALPN, so that other TLS
// clients and servers are turned away in the handshake.
const protocolName = "hotpocket-mesh"

// identity is a node's TLS side: a self-signed certificate that lives in
// memory only and serves to carry the node's key. TLS proves that the peer
// holds its key; nothing else in a certificate is looked at.
type identity struct {
	server, client *tls.Config
}

func newIdentity(k key.Private) (*identity, error) {
	private := ed25519.PrivateKey(k.Ed25519())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		// Fixed times: a node whose clock is off must still be heard.
		NotBefore: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:  time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, fmt.Errorf("make node certificate: %w", err)
	}
	base := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{protocolName},
		// The certificate of a peer says nothing but its key, which
		// VerifyConnection takes care of.
		InsecureSkipVerify:     true,
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		// Small first records would split a burst into many packets.
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := peerKey(cs)
			return err
		},
	}
	return &identity{server: base, client: base.Clone()}, nil
}

// peerKey is the key that the other side of a connection has proven to hold.
func peerKey(cs tls.ConnectionState) (key.Public, error) {
	if cs.NegotiatedProtocol != protocolName {
		return key.Public{}, errors.New("the other side does not speak the mesh protocol")
	}
	if len(cs.PeerCertificates) != 1 {
		return key.Public{}, fmt.Errorf("%d certificates, want exactly one", len(cs.PeerCertificates))
	}
	pub, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return key.Public{}, fmt.Errorf("certificate has a key of type %T, want Ed25519", cs.PeerCertificates[0].PublicKey)
	}
	return key.PublicFromEd25519(pub)
}
