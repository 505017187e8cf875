package statesync

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"testing"

	"evernode/hotpocket/statefs"
	"evernode/internal/digest"
	"evernode/internal/wire"
)

func TestRequestsComeBackAsTheyWere(t *testing.T) {
	questions := []question{
		{Ref: statefs.Ref{Kind: statefs.RefDir, Hash: digest.Sum([]byte("a"))}},
		{Ref: statefs.Ref{Kind: statefs.RefData, Path: "a/b\xff", Hash: digest.Sum(nil), Index: 1<<32 - 1}, have: []byte("tags")},
		{Ref: statefs.Ref{Kind: statefs.RefData, Path: "a/b\xff", Hash: digest.Sum(nil), Index: 7}},
		{Ref: statefs.Ref{Kind: statefs.RefData, Path: "a/c", Hash: digest.Sum([]byte("c"))}},
	}
	root, got, err := decodeRequest(encodeRequest(digest.Sum([]byte("root")), questions))
	if err != nil || root != digest.Sum([]byte("root")) || !reflect.DeepEqual(got, questions) {
		t.Fatalf("%v, %v", got, err)
	}
}

func ask(questions []question) []byte { return encodeRequest(digest.Hash{}, questions) }

func TestMalformedRequestsAreRefused(t *testing.T) {
	good := ask(make([]question, 1))
	s := NewServer(ServerConfig{State: nothing{}})
	for name, b := range map[string][]byte{
		"empty":                 {},
		"version":               append([]byte{9}, good[1:]...),
		"cut":                   good[:len(good)-1],
		"too long":              append(bytes.Clone(good), 0),
		"huge count":            append(bytes.Clone(good[:33]), 0xff, 0xff, 0xff, 0xff),
		"path shared with none": append(bytes.Clone(good[:37]), 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0),
		"oversize":              make([]byte, MaxRequest+1),
		"too many":              ask(make([]question, maxRefs+1)),
	} {
		if _, err := s.Serve(bg, peerKey(1), b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := s.Serve(bg, peerKey(1), good); err != nil {
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
	refs := make([]question, maxRefs)
	reply, err := s.Serve(bg, peerKey(1), ask(refs))
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
	request := ask(make([]question, 1))
	if _, err := s.Serve(ctx, peerKey(1), request); err != nil { // the burst
		t.Fatal(err)
	}
	cancel()
	if _, err := s.Serve(ctx, peerKey(1), request); !errors.Is(err, context.Canceled) {
		t.Errorf("second reply: %v", err)
	}
	late, cancel := context.WithTimeout(bg, 1e6)
	defer cancel()
	if _, err := s.Serve(late, peerKey(1), request); err == nil {
		t.Error("the limit did not hold the reply back")
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(ask([]question{{Ref: statefs.Ref{Kind: statefs.RefData, Path: "a/b", Index: 3}, have: []byte("abcd")}, {Ref: statefs.Ref{Path: "a/c"}}}))
	f.Add(appendAnswer(wire.AppendU32(nil, 1), answer{status: statusFound, data: []byte("data")}))
	f.Add(appendAnswer(wire.AppendU32(nil, 1), answer{status: statusLater}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if root, refs, err := decodeRequest(b); err == nil {
			again, refs2, err := decodeRequest(encodeRequest(root, refs))
			if err != nil || again != root || len(refs) != len(refs2) {
				t.Fatalf("request written and read again is different: %v", err)
			}
			for i := range refs {
				if refs[i].Ref != refs2[i].Ref || !bytes.Equal(refs[i].have, refs2[i].have) {
					t.Fatalf("question %d written and read again is different", i)
				}
			}
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
