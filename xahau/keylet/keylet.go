// Package keylet computes where entries stand in the ledger: the type of an
// entry and its index, from what identifies it. The embedded ledger, the hook
// machine's util_keylet and clients that read entries by index use it. It reads
// nothing.
package keylet

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"evernode/xahau"
)

// Keylet is where an entry stands and what type it is of.
type Keylet struct {
	Type  xahau.EntryType
	Index xahau.Hash256
}

// Size is the length of a keylet's bytes.
const Size = 34

// Bytes is the form that hooks use: the type in two bytes, the highest first,
// and the index.
func (k Keylet) Bytes() [Size]byte {
	var b [Size]byte
	binary.BigEndian.PutUint16(b[:], uint16(k.Type))
	copy(b[2:], k.Index[:])
	return b
}

// FromBytes reads the form that hooks use.
func FromBytes(b []byte) (Keylet, error) {
	if len(b) != Size {
		return Keylet{}, fmt.Errorf("keylet has %d bytes, want %d", len(b), Size)
	}
	return Keylet{xahau.EntryType(binary.BigEndian.Uint16(b)), xahau.Hash256(b[2:])}, nil
}

// The spaces keep the indexes of different things apart.
const (
	spaceAccount        = 'a'
	spaceDirectoryPage  = 'd'
	spaceTrustLine      = 'r'
	spaceOffer          = 'o'
	spaceOwnerDirectory = 'O'
	spaceBook           = 'B'
	spaceSkipList       = 's'
	spaceEscrow         = 'u'
	spaceAmendments     = 'f'
	spaceFees           = 'e'
	spaceTicket         = 'T'
	spaceSignerList     = 'S'
	spacePayChannel     = 'x'
	spaceCheck          = 'C'
	spaceDepositPreauth = 'p'
	spaceNegativeUNL    = 'N'
	spaceHook           = 'H'
	spaceHookStateDir   = 'J'
	spaceHookState      = 'v'
	spaceHookDefinition = 'D'
	spaceEmittedTxn     = 'E'
	spaceEmittedDir     = 'F'
	spaceNFTOffer       = 'q'
	spaceNFTBuys        = 'h'
	spaceNFTSells       = 'i'
	spaceURIToken       = 'U'
	spaceImportVLSeq    = 'I'
	spaceUNLReport      = 'R'
)

func index(typ xahau.EntryType, space byte, parts ...[]byte) Keylet {
	var buf [160]byte
	b := append(buf[:0], 0, space)
	for _, p := range parts {
		b = append(b, p...)
	}
	return Keylet{typ, xahau.Sha512Half(b)}
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// Sequence tells entries of one account apart: the sequence number of the
// transaction that made them or, if a hook emitted that, its nonce.
type Sequence []byte

// Seq is the Sequence of a transaction with a sequence number or ticket.
func Seq(n uint32) Sequence { return u32(n) }

// Nonce is the Sequence of an emitted transaction.
func Nonce(h xahau.Hash256) Sequence { return h[:] }

// Account is an account's root.
func Account(a xahau.AccountID) Keylet { return index(xahau.EntryAccountRoot, spaceAccount, a[:]) }

// Line is the trust line between two accounts in a currency.
func Line(a, b xahau.AccountID, c xahau.Currency) Keylet {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	return index(xahau.EntryRippleState, spaceTrustLine, a[:], b[:], c[:])
}

// Offer is an account's offer.
func Offer(a xahau.AccountID, seq Sequence) Keylet {
	return index(xahau.EntryOffer, spaceOffer, a[:], seq)
}

// Check is an account's check.
func Check(a xahau.AccountID, seq Sequence) Keylet {
	return index(xahau.EntryCheck, spaceCheck, a[:], seq)
}

// Escrow is an account's escrow.
func Escrow(a xahau.AccountID, seq Sequence) Keylet {
	return index(xahau.EntryEscrow, spaceEscrow, a[:], seq)
}

// PayChannel is a payment channel from one account to another.
func PayChannel(from, to xahau.AccountID, seq Sequence) Keylet {
	return index(xahau.EntryPayChannel, spacePayChannel, from[:], to[:], seq)
}

// Ticket is an account's ticket.
func Ticket(a xahau.AccountID, ticket uint32) Keylet {
	return index(xahau.EntryTicket, spaceTicket, a[:], u32(ticket))
}

// SignerList is who signs together for an account.
func SignerList(a xahau.AccountID) Keylet {
	return index(xahau.EntrySignerList, spaceSignerList, a[:], u32(0))
}

// DepositPreauth is an account's permission for another to pay it.
func DepositPreauth(owner, authorized xahau.AccountID) Keylet {
	return index(xahau.EntryDepositPreauth, spaceDepositPreauth, owner[:], authorized[:])
}

// OwnerDirectory is the first page of what an account owns.
func OwnerDirectory(a xahau.AccountID) Keylet {
	return index(xahau.EntryDirectoryNode, spaceOwnerDirectory, a[:])
}

// Page is a page of the directory with a root.
func Page(root xahau.Hash256, page uint64) Keylet {
	if page == 0 {
		return Keylet{xahau.EntryDirectoryNode, root}
	}
	return index(xahau.EntryDirectoryNode, spaceDirectoryPage, root[:], u64(page))
}

// Book is an order book, the directory of offers that take one issue and give
// another; its last 8 bytes are 0, the best possible quality.
func Book(pays, gets xahau.Issue) Keylet {
	return Quality(index(xahau.EntryDirectoryNode, spaceBook, pays.Currency[:], gets.Currency[:], pays.Issuer[:], gets.Issuer[:]), 0)
}

// Quality is the directory of the offers of one quality in an order book.
func Quality(book Keylet, quality uint64) Keylet {
	binary.BigEndian.PutUint64(book.Index[24:], quality)
	book.Type = xahau.EntryDirectoryNode
	return book
}

// QualityOf reads the quality from an order book directory's index.
func QualityOf(i xahau.Hash256) uint64 { return binary.BigEndian.Uint64(i[24:]) }

// BookEnd is the index behind all qualities of an order book.
func BookEnd(book Keylet) xahau.Hash256 {
	end := Quality(book, 0).Index
	for i := 23; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			break
		}
	}
	return end
}

// URIToken is a token, of which the index is the URITokenID.
func URIToken(issuer xahau.AccountID, uri []byte) Keylet {
	return index(xahau.EntryURIToken, spaceURIToken, issuer[:], uri)
}

// Hook is the chain of hooks of an account.
func Hook(a xahau.AccountID) Keylet { return index(xahau.EntryHook, spaceHook, a[:]) }

// HookDefinition is the code with a hash.
func HookDefinition(hash xahau.Hash256) Keylet {
	return index(xahau.EntryHookDefinition, spaceHookDefinition, hash[:])
}

// HookState is an entry of an account's hook state.
func HookState(a xahau.AccountID, key, namespace xahau.Hash256) Keylet {
	return index(xahau.EntryHookState, spaceHookState, a[:], key[:], namespace[:])
}

// HookStateDirectory is the first page of a namespace of an account's hook state.
func HookStateDirectory(a xahau.AccountID, namespace xahau.Hash256) Keylet {
	return index(xahau.EntryDirectoryNode, spaceHookStateDir, a[:], namespace[:])
}

// EmittedTxn is a transaction that a hook emitted, until it is applied.
func EmittedTxn(id xahau.Hash256) Keylet {
	return index(xahau.EntryEmittedTxn, spaceEmittedTxn, id[:])
}

// EmittedDirectory is the first page of the emitted transactions.
func EmittedDirectory() Keylet { return index(xahau.EntryDirectoryNode, spaceEmittedDir) }

// Fees is the ledger's fee settings.
func Fees() Keylet { return index(xahau.EntryFeeSettings, spaceFees) }

// Amendments is the amendments in force.
func Amendments() Keylet { return index(xahau.EntryAmendments, spaceAmendments) }

// NegativeUNL is the validators that do not count for now.
func NegativeUNL() Keylet { return index(xahau.EntryNegativeUNL, spaceNegativeUNL) }

// UNLReport is the validators that were active.
func UNLReport() Keylet { return index(xahau.EntryUNLReport, spaceUNLReport) }

// SkipList is the hashes of the last 256 ledgers.
func SkipList() Keylet { return index(xahau.EntryLedgerHashes, spaceSkipList) }

// SkipListOf is the hashes of every 256th ledger among the 65,536 that ledger
// belongs to.
func SkipListOf(ledger uint32) Keylet {
	return index(xahau.EntryLedgerHashes, spaceSkipList, u32(ledger>>16))
}

// ImportVLSequence is the last list of a validator list's key.
func ImportVLSequence(key xahau.PublicKey) Keylet {
	return index(xahau.EntryImportVLSequence, spaceImportVLSeq, key[:])
}

// NFTokenOffer is an account's offer of a token of the older kind.
func NFTokenOffer(a xahau.AccountID, seq Sequence) Keylet {
	return index(xahau.EntryNFTokenOffer, spaceNFTOffer, a[:], seq)
}

// NFTokenBuys and NFTokenSells are the directories of offers for such a token.
func NFTokenBuys(id xahau.Hash256) Keylet {
	return index(xahau.EntryDirectoryNode, spaceNFTBuys, id[:])
}

// NFTokenSells is the directory of the offers to sell such a token.
func NFTokenSells(id xahau.Hash256) Keylet {
	return index(xahau.EntryDirectoryNode, spaceNFTSells, id[:])
}

// NFTokenPage is where an account's page of such tokens that holds one begins:
// the account and the last 12 bytes of the token's id.
func NFTokenPage(owner xahau.AccountID, id xahau.Hash256) Keylet {
	k := Keylet{Type: xahau.EntryNFTokenPage}
	copy(k.Index[:], owner[:])
	copy(k.Index[20:], id[20:])
	return k
}
