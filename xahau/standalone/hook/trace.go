package hook

import (
	"context"
	"encoding/hex"
	"log/slog"
	"strings"

	"evernode/xahau/xfl"
)

// The trace functions write to the log, if it is listened to at debug level. What
// one run may write is bounded.

const (
	maxTraceName = 128
	maxTraceData = 1_023
)

// tracing charges for a trace whether or not anybody listens, because the budget
// must be the same everywhere.
func (r *run) tracing() bool {
	r.spend(priceLookup)
	return r.log != nil && r.traced < maxTracedBytes && r.log.Enabled(context.Background(), slog.LevelDebug)
}

func (r *run) say(name []byte, attr slog.Attr, size int) {
	r.traced += len(name) + size
	text := strings.ToValidUTF8(strings.TrimSuffix(string(name), "\x00"), "?")
	r.log.Debug("hook trace", "account", r.call.Account.String(), "hook", r.call.Hash.String(), "message", text, attr)
}

func (r *run) trace(p []uint64) Code {
	mptr, mlen, dptr, dlen, asHex := lo(p[0]), lo(p[1]), lo(p[2]), lo(p[3]), lo(p[4])
	if r.outside(mptr, mlen) || r.outside(dptr, dlen) {
		return OutOfBounds
	}
	if !r.tracing() {
		return 0
	}
	data := r.mem[dptr : dptr+min(dlen, maxTraceData)]
	text := ""
	if asHex != 0 {
		text = strings.ToUpper(hex.EncodeToString(data))
	} else {
		text = strings.ToValidUTF8(string(plain(data)), "?")
	}
	r.say(r.mem[mptr:mptr+min(mlen, maxTraceName)], slog.String("data", text), len(text))
	return 0
}

func (r *run) traceNum(p []uint64) Code {
	ptr, length := lo(p[0]), lo(p[1])
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	if r.tracing() {
		r.say(r.mem[ptr:ptr+min(length, maxTraceName)], slog.Int64("number", int64(p[2])), 8)
	}
	return 0
}

func (r *run) traceFloat(p []uint64) Code {
	ptr, length := lo(p[0]), lo(p[1])
	if r.outside(ptr, length) {
		return OutOfBounds
	}
	if r.tracing() {
		r.say(r.mem[ptr:ptr+min(length, maxTraceName)], slog.String("float", xfl.Float(p[2]).String()), 8)
	}
	return 0
}
