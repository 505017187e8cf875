package mesh

import (
	"cmp"
	"slices"
	"time"

	"evernode/hotpocket/key"
)

const (
	bookLimit     = 256 // addresses kept, discovered ones included
	maxFailures   = 10  // of a discovered address in a row before it is blocked
	maxDialing    = 32  // attempts at once
	steadyAfter   = 2 * time.Second
	maxWrittenOut = 100 // discovered addresses that KnownPeers returns
)

// book is the address book: which addresses exist, what is known about them
// and when each is to be dialed next. It takes the time and randomness as
// values and does no I/O; it is not safe for concurrent use.
type book struct {
	timing  Timing
	entries map[string]*entry
	blocked map[string]time.Time // discovered addresses that failed, until when
}

// entry is one address.
type entry struct {
	address    string
	configured bool // by the operator or the contract: never given up
	key        key.Public
	known      bool // key is what answered last
	failures   int  // in a row
	next       time.Time
	dialing    bool
	current    bool   // its session, dialed through this address, is up
	off        string // why it is not dialed at all until it is added anew
	trouble    string // what came of the last attempt, "" when it went well
}

func newBook(t Timing) *book {
	return &book{timing: t, entries: make(map[string]*entry), blocked: make(map[string]time.Time)}
}

// configure adds an address that the operator named, or makes an existing one
// such, and lifts whatever kept it from being dialed.
func (b *book) configure(address string, now time.Time) {
	delete(b.blocked, address)
	e := b.entries[address]
	if e == nil {
		e = &entry{address: address}
		b.entries[address] = e
	}
	if e.off != "" {
		e.off, e.failures = "", 0
	}
	e.configured = true
	if !e.current {
		e.next = now
	}
}

// discover adds an address learned from a peer; it reports false if the book
// is full, or the address is there already or blocked.
func (b *book) discover(address string, now time.Time) bool {
	if b.entries[address] != nil || len(b.entries) >= bookLimit {
		return false
	}
	if until, ok := b.blocked[address]; ok {
		if now.Before(until) {
			return false
		}
		delete(b.blocked, address)
	}
	b.entries[address] = &entry{address: address, next: now}
	return true
}

func (b *book) full() bool { return len(b.entries) >= bookLimit }

// remove forgets an address and returns what it was.
func (b *book) remove(address string) *entry {
	e := b.entries[address]
	delete(b.entries, address)
	return e
}

// due marks up to room addresses whose time has come as being dialed and
// returns them, preferred keys first, and the time at which the next one is
// due (zero if none). Entries with a preferred key do not count against room.
func (b *book) due(now time.Time, room int, prefer func(key.Public) bool) ([]string, time.Time) {
	var ready []*entry
	var next time.Time
	dialing := 0
	for _, e := range b.entries {
		switch {
		case e.dialing:
			dialing++
		case e.current || e.off != "":
		case e.next.After(now):
			if next.IsZero() || e.next.Before(next) {
				next = e.next
			}
		default:
			ready = append(ready, e)
		}
	}
	rank := func(e *entry) int {
		switch {
		case e.known && prefer(e.key):
			return 0
		case e.configured:
			return 1
		}
		return 2
	}
	slices.SortFunc(ready, func(x, y *entry) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.failures, y.failures), cmp.Compare(x.address, y.address))
	})
	var addresses []string
	for _, e := range ready {
		if dialing >= maxDialing {
			break
		}
		if rank(e) != 0 {
			if room <= 0 {
				break
			}
			room--
		}
		dialing++
		e.dialing = true
		addresses = append(addresses, e.address)
	}
	return addresses, next
}

// dialed returns how many addresses are being dialed.
func (b *book) dialed() int {
	n := 0
	for _, e := range b.entries {
		if e.dialing {
			n++
		}
	}
	return n
}

// pause is the time until the next attempt after a number of failures; random
// is in [0,1).
func (b *book) pause(failures int, random float64) time.Duration {
	if failures == 0 {
		return time.Duration(random * float64(b.timing.RedialMin))
	}
	d := b.timing.RedialMax
	if failures < 30 {
		d = min(d, b.timing.RedialMin<<(failures-1))
	}
	return time.Duration(float64(d) * (0.75 + random/2))
}

// failed records a failed attempt and returns the number of failures in a row
// and whether the address was given up.
func (b *book) failed(address string, now time.Time, random float64) (failures int, gone bool) {
	e := b.entries[address]
	if e == nil {
		return 0, true
	}
	e.dialing = false
	e.failures++
	if !e.configured && e.failures >= maxFailures {
		delete(b.entries, address)
		b.block(address, now)
		return e.failures, true
	}
	e.next = now.Add(b.pause(e.failures, random))
	return e.failures, false
}

func (b *book) block(address string, now time.Time) {
	for a, until := range b.blocked {
		if !now.Before(until) || len(b.blocked) >= bookLimit {
			delete(b.blocked, a)
		}
	}
	b.blocked[address] = now.Add(b.timing.Block)
}

// busy records an attempt that found nobody to blame: the peer is connected
// already, is full, or wants us to wait.
func (b *book) busy(address string, k key.Public, now time.Time, wait time.Duration) {
	if e := b.entries[address]; e != nil {
		e.dialing = false
		e.key, e.known = k, true
		e.next = now.Add(wait)
	}
}

// off records that an address must not be dialed again.
func (b *book) off(address, why string) {
	if e := b.entries[address]; e != nil {
		e.dialing, e.off = false, why
	}
}

// up records that a session with k began; address is the one dialed, or empty
// for an accepted session.
func (b *book) up(address string, k key.Public, now time.Time) {
	for _, e := range b.entries {
		switch {
		case e.address == address:
			e.dialing, e.current, e.trouble = false, true, ""
			e.key, e.known = k, true
		case e.known && e.key == k:
			e.next = now.Add(b.timing.Recheck)
		}
	}
}

// down records that the session with k ended after it lasted for a time; the
// peer's addresses are to be dialed again after at least wait.
func (b *book) down(k key.Public, lasted time.Duration, now time.Time, wait time.Duration, random float64) {
	for _, e := range b.entries {
		if !e.known || e.key != k {
			continue
		}
		e.current = false
		if lasted >= steadyAfter {
			e.failures = 0
		} else {
			e.failures = min(e.failures+1, maxFailures-1)
		}
		e.next = now.Add(max(wait, b.pause(e.failures, random)))
	}
}

// known returns the addresses worth keeping for the next start: the configured
// ones, then discovered ones that answered.
func (b *book) known() []string {
	var configured, found []string
	for _, e := range b.entries {
		switch {
		case e.off == selfAddress:
		case e.configured:
			configured = append(configured, e.address)
		case e.known && e.off == "":
			found = append(found, e.address)
		}
	}
	slices.Sort(configured)
	slices.Sort(found)
	return append(configured, found[:min(len(found), maxWrittenOut)]...)
}

// selfAddress is why a node does not dial its own address.
const selfAddress = "it is this node's own address"
