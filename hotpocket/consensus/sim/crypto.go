package sim

import (
	"encoding/binary"

	"evernode/hotpocket/consensus"
	"evernode/hotpocket/key"
	"evernode/internal/digest"
)

// fakeSigner signs with a keyed hash that anybody could compute. Nobody in the
// simulation signs for another, so it is as good as a signature and a hundred
// times as fast.
type fakeSigner struct{ author key.Public }

func (s fakeSigner) Sign(msg []byte) key.Signature {
	var sig key.Signature
	binary.BigEndian.PutUint64(sig[:], fakeHash(s.author, msg))
	return sig
}

type fakeVerifier struct{}

func (fakeVerifier) Verify(k key.Public, msg, sig []byte) bool {
	return len(sig) == key.SignatureSize && binary.BigEndian.Uint64(sig) == fakeHash(k, msg)
}

// fakeHash is FNV-1a over words instead of bytes.
func fakeHash(k key.Public, msg []byte) uint64 {
	const prime = 1099511628211
	h := uint64(14695981039346656037) ^ uint64(len(msg))
	mix := func(b []byte) {
		for ; len(b) >= 8; b = b[8:] {
			h = (h ^ binary.LittleEndian.Uint64(b)) * prime
			h ^= h >> 29
		}
		for _, c := range b {
			h = (h ^ uint64(c)) * prime
		}
	}
	mix(k[:])
	mix(msg)
	return h
}

// identity is a node's key with what signs by it.
type identity struct {
	public key.Public
	signer consensus.Signer
}

func (w *World) newIdentity() identity {
	var seed [key.SeedSize]byte
	for i := 0; i < len(seed); i += 8 {
		binary.BigEndian.PutUint64(seed[i:], w.rng.Uint64())
	}
	if w.cfg.RealKeys {
		k, err := key.FromSeed(seed[:])
		if err != nil {
			panic(err) // the seed has the right length
		}
		return identity{k.Public(), k}
	}
	var p key.Public
	p[0] = key.Prefix
	copy(p[1:], seed[:])
	return identity{p, fakeSigner{p}}
}

// hash makes up a digest: of a bundle, a state, a list of users.
func (w *World) hash() digest.Hash {
	var h digest.Hash
	for i := 0; i < len(h); i += 8 {
		binary.BigEndian.PutUint64(h[i:], w.rng.Uint64())
	}
	return h
}

// mixed derives a digest from a name, a digest and a number.
func mixed(name string, h digest.Hash, n uint64) digest.Hash {
	b := append([]byte(name), h[:]...)
	return digest.Sum(binary.BigEndian.AppendUint64(b, n))
}
