package remote

import (
	"context"
	"testing"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
)

// sink takes pieces and forgets them.
type sink struct{}

func (sink) HasTree(string, digest.Hash) bool                      { return false }
func (sink) Node(digest.Hash) ([]byte, bool)                       { return nil, false }
func (sink) PutNode(statefs.RefKind, digest.Hash, []byte) error    { return nil }
func (sink) Switch(context.Context, statefs.Version, []byte) error { return statefs.ErrNotFound }
func (sink) PutFile(digest.Hash, []byte) error                     { return nil }
func (sink) HasFile(digest.Hash) bool                              { return true }
func (sink) Close() error                                          { return nil }
func (sink) OpenFile(context.Context, string, uint64, digest.Hash, []byte) (statefs.StagedFile, error) {
	return sinkFile{}, nil
}

type sinkFile struct{}

func (sinkFile) Missing() []uint32        { return nil }
func (sinkFile) Put(uint32, []byte) error { return nil }
func (sinkFile) Close() error             { return nil }

// What the socket costs, for pieces of 1 MiB and for questions.
func BenchmarkPieces(b *testing.B) {
	piece := make([]byte, 1<<20)
	f := &fake{staging: sink{}, object: func(context.Context, statefs.Ref) ([]byte, error) { return piece, nil }}
	s := connect(b, service(b, f, Options{}), nil)
	st, err := s.Stage(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	file, err := st.OpenFile(b.Context(), "x", 1<<30, digest.Hash{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	each := func(name string, size int, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(size))
			b.SetParallelism(2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := f(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
	b.Run("AppendObject", func(b *testing.B) {
		b.SetBytes(int64(len(piece)))
		buf := make([]byte, 0, 2*len(piece))
		for b.Loop() {
			if _, err := s.AppendObject(b.Context(), statefs.Ref{}, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
	each("Object", len(piece), func() error { _, err := s.Object(b.Context(), statefs.Ref{}); return err })
	each("PutFile", len(piece), func() error { return st.PutFile(digest.Hash{}, piece) })
	each("Put", len(piece), func() error { return file.Put(0, piece) })
	b.Run("HasFile", func(b *testing.B) {
		for b.Loop() {
			st.HasFile(digest.Hash{})
		}
	})
}
