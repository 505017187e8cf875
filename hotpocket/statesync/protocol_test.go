package statesync

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

func TestRequestsComeBackAsTheyWere(t *testing.T) {
	refs := []statefs.Ref{
		{Kind: statefs.RefDir, Hash: digest.Sum([]byte("a"))},
		{Kind: statefs.RefData, Path: "a/b\xff", Hash: digest.Sum(nil), Index: 1<<32 - 1},
	}
	got, err := decodeRequest(encodeRequest(refs))
	if err != nil || len(got) != 2 || got[0] != refs[0] || got[1] != refs[1] {
		t.Fatalf("%v, %v", got, err)
	}
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	good := encodeRequest([]statefs.Ref{{Kind: statefs.RefDir}})
	s := NewServer(ServerConfig{State: nothing{}})
	for name, b := range map[string][]byte{
		"empty":      {},
		"version":    append([]byte{9}, good[1:]...),
		"cut":        good[:len(good)-1],
		"too long":   append(bytes.Clone(good), 0),
		"huge count": {1, 0xff, 0xff, 0xff, 0xff},
		"oversize":   make([]byte, MaxRequest+1),
		"257 refs":   encodeRequest(make([]statefs.Ref, maxRefs+1)),
	} {
		if _, err := s.Serve(bg, b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := s.Serve(bg, good); err != nil {
		t.Error(err)
	}
}

type nothing struct{}

func (nothing) Object(context.Context, statefs.Ref) ([]byte, error) {
	return nil, statefs.ErrNotFound
}

// fat answers everything with as much as an object may have.
type fat struct{}

func (fat) Object(context.Context, statefs.Ref) ([]byte, error) {
	return make([]byte, statefs.MaxObject), nil
}

func TestRepliesStayInBounds(t *testing.T) {
	s := NewServer(ServerConfig{State: fat{}})
	refs := make([]statefs.Ref, maxRefs)
	reply, err := s.Serve(bg, encodeRequest(refs))
	must(t, err)
	if len(reply) > MaxReply {
		t.Fatalf("reply of %d bytes", len(reply))
	}
	answers, err := decodeReply(reply, len(refs))
	must(t, err)
	if answers[0].status != statusFound || answers[maxRefs-1].status != statusLater {
		t.Errorf("first %d, last %d", answers[0].status, answers[maxRefs-1].status)
	}
	if _, err := decodeReply(reply, 3); err == nil {
		t.Error("a reply to another question was taken")
	}
}

func TestUploadIsLimited(t *testing.T) {
	s := NewServer(ServerConfig{State: fat{}, BytesPerSecond: 1000})
	ctx, cancel := context.WithCancel(bg)
	request := encodeRequest(make([]statefs.Ref, 1))
	if _, err := s.Serve(ctx, request); err != nil { // the burst
		t.Fatal(err)
	}
	cancel()
	if _, err := s.Serve(ctx, request); !errors.Is(err, context.Canceled) {
		t.Errorf("second reply: %v", err)
	}
	late, cancel := context.WithTimeout(bg, 1e6)
	defer cancel()
	if _, err := s.Serve(late, request); err == nil {
		t.Error("the limit did not hold the reply back")
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(encodeRequest([]statefs.Ref{{Kind: statefs.RefData, Path: "a/b", Index: 3}}))
	f.Add(appendAnswer(wire.AppendU32(nil, 1), answer{statusFound, []byte("data")}))
	f.Add(appendAnswer(wire.AppendU32(nil, 1), answer{status: statusLater}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if refs, err := decodeRequest(b); err == nil && !bytes.Equal(encodeRequest(refs), b) {
			t.Fatal("request read and written again is different")
		}
		for want := range 3 {
			answers, err := decodeReply(b, want)
			if err != nil {
				continue
			}
			again := wire.AppendU32(nil, uint32(len(answers)))
			for _, a := range answers {
				again = appendAnswer(again, a)
			}
			if !bytes.Equal(again, b) {
				t.Fatal("reply read and written again is different")
			}
		}
	})
}
