package statefs

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"evernode/internal/digest"
	"evernode/internal/wire"
)

// The index lets a restarted node trust what it has hashed before: the root of
// the working folder when it was last scanned (its folders are in the pack) and
// the signatures of all its files, in the order of a walk.
const indexMagic = "evernode/state/index/1"

const sigBytes = 8 + 8 + 8 + 1

func encodeIndex(root *node) []byte {
	b := wire.AppendString(nil, indexMagic)
	b = append(b, root.Hash[:]...)
	var count uint32
	at := len(b)
	b = wire.AppendU32(b, 0)
	var walk func(n *node)
	walk = func(n *node) {
		for _, k := range n.kids {
			switch k.Kind {
			case KindDir:
				walk(k)
			case KindFile:
				b = wire.AppendU64(b, k.sig.ino)
				b = wire.AppendU64(b, uint64(k.sig.mtime))
				b = wire.AppendU64(b, uint64(k.sig.ctime))
				b = wire.AppendBool(b, k.sig.racy)
				count++
			}
		}
	}
	walk(root)
	copy(b[at:], wire.AppendU32(nil, count))
	h := digest.Sum(b)
	return append(b, h[:]...)
}

// decodeIndex returns the tree of the last scan, or an error when index and
// pack do not belong together.
func decodeIndex(b []byte, get func(digest.Hash) ([]byte, error)) (*node, error) {
	if len(b) < digest.Size {
		return nil, wire.ErrShort
	}
	body := b[:len(b)-digest.Size]
	if h := digest.Sum(body); !bytes.Equal(h[:], b[len(body):]) {
		return nil, errors.New("index has a wrong hash")
	}
	r := wire.NewReader(body)
	if magic := r.String(64); r.Err() == nil && magic != indexMagic {
		return nil, fmt.Errorf("index begins with %q", magic)
	}
	var root digest.Hash
	r.Fixed(root[:])
	n := r.Count(1<<31-1, sigBytes)
	if r.Err() != nil {
		return nil, r.Err()
	}
	tree, err := load(root, get)
	if err != nil {
		return nil, err
	}
	var walk func(n *node)
	walk = func(d *node) {
		for _, k := range d.kids {
			switch k.Kind {
			case KindDir:
				walk(k)
			case KindFile:
				k.sig = sig{ino: r.U64(), mtime: int64(r.U64()), ctime: int64(r.U64()), racy: r.Bool()}
				n--
			}
		}
	}
	walk(tree)
	if n != 0 {
		return nil, errors.New("index and folders have different numbers of files")
	}
	return tree, r.Close()
}

func readIndex(path string, get func(digest.Hash) ([]byte, error)) (*node, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return decodeIndex(b, get)
}
