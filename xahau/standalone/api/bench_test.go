package api

import (
	"context"
	"fmt"
	"testing"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/standalone"
)

func benchWorld(b *testing.B) (*standalone.Ledger, *Server) {
	b.Helper()
	node, err := standalone.Open(b.Context(), standalone.Config{})
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(node, Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		s.Close()
		node.Close(context.Background())
	})
	return node, s
}

// benchBlobs signs payments of the first account.
func benchBlobs(b *testing.B, node *standalone.Ledger, n int) [][]byte {
	b.Helper()
	keys := master(b)
	to := key("bench").Account()
	list := make([][]byte, n)
	for i := range list {
		tx := xahau.Payment(keys.Account(), to, xahau.Drops(10_000_000))
		tx.Set(field.Sequence, xahau.Uint32(1+i))
		tx.Set(field.Fee, xahau.Drops(10))
		tx.Set(field.NetworkID, xahau.Uint32(node.NetworkID()))
		s, err := node.Definitions().Sign(tx, keys)
		if err != nil {
			b.Fatal(err)
		}
		list[i] = s.Blob
	}
	return list
}

// Payments through the API: what a machine takes in per second over one connection.
func BenchmarkSubmit(b *testing.B) {
	node, s := benchWorld(b)
	blobs := benchBlobs(b, node, b.N)
	b.ResetTimer()
	for i, blob := range blobs {
		result, _, refusal := s.do(b.Context(), nil, "submit", params{"tx_blob": fmt.Appendf(nil, `"%X"`, blob)})
		if refusal != nil || result["engine_result"] != "tesSUCCESS" {
			b.Fatal(result, refusal)
		}
		if i%5000 == 4999 {
			if _, err := node.Accept(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	if _, err := node.Accept(b.Context()); err != nil {
		b.Fatal(err)
	}
}
