package ledger

import (
	"bytes"
	"reflect"
	"testing"
)

func FuzzParseRecord(f *testing.F) {
	f.Add(appendRecord(nil, chainRecord(1, 0)))
	f.Add(appendRecord(nil, chainRecord(262144, 50)))
	f.Add(appendRecord(nil, Record{Seq: 0}))
	f.Add(bytes.Repeat([]byte{0xff}, 84))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err == nil && !bytes.Equal(appendRecord(nil, r), b) {
			t.Error("two encodings of one record")
		}
	})
}

func FuzzParseRaw(f *testing.F) {
	raw := chainRaw(9, 3)
	f.Add(encodeInputs(raw.Inputs))
	f.Add(encodeOutputs(raw.Outputs))
	f.Add(encodeInputs([]RawInput{}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if in, err := parseInputs(b); err == nil && !bytes.Equal(encodeInputs(in), b) {
			t.Error("two encodings of one list of inputs")
		}
		if out, err := parseOutputs(b); err == nil && !bytes.Equal(encodeOutputs(out), b) {
			t.Error("two encodings of one list of outputs")
		}
		parseRaw(b)
	})
}

func FuzzParseState(f *testing.F) {
	s := state{}
	f.Add(appendState(nil, &s))
	s.advance(chainRecord(3, 4))
	s.advance(chainRecord(9, 4))
	s.addPromise([]byte("promise"), false)
	s.setMeta("name", []byte("value"))
	f.Add(appendState(nil, &s))
	f.Add([]byte{checkpointVersion, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseState(b)
		if err != nil {
			return
		}
		again, err := parseState(appendState(nil, s))
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%+v is read as %+v, %v", s, again, err)
		}
	})
}

func FuzzParseBlob(f *testing.F) {
	f.Add([]byte(blobMagic), uint64(0))
	f.Add(append([]byte(blobMagic), make([]byte, 20)...), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, seq uint64) { parseBlob(b, seq) })
}
