package xahau

import "time"

// Epoch is the beginning of the ledger's time, 2000-01-01 UTC, in seconds since
// 1970.
const Epoch = 946684800

// Time is a time of the ledger, in seconds since Epoch, as time.
func Time(seconds uint32) time.Time { return time.Unix(int64(seconds)+Epoch, 0).UTC() }

// LedgerTime is a time in seconds since Epoch, cut off, and 0 for those before.
func LedgerTime(t time.Time) uint32 {
	s := t.Unix() - Epoch
	if s < 0 {
		return 0
	}
	return uint32(min(s, 1<<32-1))
}
