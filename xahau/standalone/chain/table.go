package chain

import (
	"bytes"
	"maps"
	"slices"
)

// position is where a transaction stands in the order of all.
type position struct {
	ledger, index uint32
}

func (p position) before(o position) bool {
	return p.ledger < o.ledger || p.ledger == o.ledger && p.index < o.index
}

// entry is a transaction of an account.
type entry struct {
	pos position
	at  place
}

// table is the index of the last ledgers, in memory.
type table struct {
	first, last uint32 // ledgers, 0 when there are none
	end         uint64 // of the stream of ledgers after the last
	stateEnd    uint64 // of the stream of nodes after the last
	bytes       int64  // what a restart would have to read to build this again
	ledgers     []place
	hashes      map[Hash]place // of ledgers and transactions
	accounts    map[Account][]entry
}

func newTable() *table {
	return &table{hashes: map[Hash]place{}, accounts: map[Account][]entry{}}
}

// add adds the next ledger. places are those of its transactions.
func (t *table) add(l *info, txs []Transaction, places []place) {
	seq := l.header.Seq
	if t.first == 0 {
		t.first = seq
	}
	t.last = seq
	t.ledgers = append(t.ledgers, l.at)
	t.hashes[l.hash] = l.at
	for i := range txs {
		t.hashes[txs[i].Hash] = places[i]
		for _, a := range txs[i].Accounts {
			list := t.accounts[a]
			e := entry{position{seq, uint32(i)}, places[i]}
			if len(list) == 0 || list[len(list)-1].pos.before(e.pos) { // an account named twice counts once
				t.accounts[a] = append(list, e)
			}
		}
	}
}

// run returns the content of the table as sorted records.
func (t *table) sections() sections {
	var s sections
	for _, h := range slices.SortedFunc(maps.Keys(t.hashes), func(a, b Hash) int { return bytes.Compare(a[:], b[:]) }) {
		s.hashes = appendHashRecord(s.hashes, h, t.hashes[h])
	}
	for _, a := range slices.SortedFunc(maps.Keys(t.accounts), func(a, b Account) int { return bytes.Compare(a[:], b[:]) }) {
		for _, e := range t.accounts[a] {
			s.accounts = appendAccountRecord(s.accounts, a, e)
		}
	}
	for i, p := range t.ledgers {
		s.ledgers = appendLedgerRecord(s.ledgers, t.first+uint32(i), p)
	}
	return s
}

// list appends up to limit transactions of an account from a position on, in
// the given direction.
func (t *table) list(out []entry, a Account, from position, forward bool, limit int) []entry {
	all := t.accounts[a]
	i, found := slices.BinarySearchFunc(all, from, func(e entry, p position) int {
		switch {
		case e.pos.before(p):
			return -1
		case p.before(e.pos):
			return 1
		}
		return 0
	})
	if forward {
		for ; i < len(all) && len(out) < limit; i++ {
			out = append(out, all[i])
		}
		return out
	}
	if !found {
		i--
	}
	for ; i >= 0 && len(out) < limit; i-- {
		out = append(out, all[i])
	}
	return out
}
