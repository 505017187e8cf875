package client

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"evernode/xahau"
	"evernode/xahau/field"
)

// DefaultWindow is how many ledgers a transaction has to get into one. Hosts use
// 30 (spec/hosting.md section 3.2).
const DefaultWindow = 20

// AutofillOptions says how Autofill completes a transaction. The zero value of a
// field is its default.
type AutofillOptions struct {
	// Window is how many ledgers the transaction has; default DefaultWindow.
	Window uint32
	// Signers is how many sign together, each of whom costs a base fee; 0 for one
	// who signs alone.
	Signers int
	// MaxFee is the fee in drops above which Autofill refuses; default no limit.
	MaxFee int64
}

// FeeError is Autofill's refusal of a fee.
type FeeError struct{ Fee, Max int64 }

// Error names the fees in drops.
func (e *FeeError) Error() string {
	return fmt.Sprintf("the fee is %d drops, more than the %d allowed", e.Fee, e.Max)
}

// legacyNetworks are the numbers up to which transactions do not name their
// network.
const legacyNetworks = 1024

// Autofill sets what is missing of NetworkID, Sequence, LastLedgerSequence and
// Fee, in this order. The fee is what the server computes for the very
// transaction, hooks included (spec/ledger.md section 3).
func (c *Client) Autofill(ctx context.Context, tx *xahau.Object, opt AutofillOptions) error {
	if err := c.autofill(ctx, tx, opt); err != nil {
		return fmt.Errorf("complete a %s: %w", c.Definitions().TransactionName(tx.TransactionType()), err)
	}
	return nil
}

func (c *Client) autofill(ctx context.Context, tx *xahau.Object, opt AutofillOptions) error {
	if !tx.Has(field.NetworkID) {
		id, err := c.NetworkID(ctx)
		if err != nil {
			return err
		}
		if id > legacyNetworks {
			tx.Set(field.NetworkID, xahau.Uint32(id))
		}
	}
	if !tx.Has(field.Sequence) {
		sequence := uint32(0)
		if !tx.Has(field.TicketSequence) {
			info, err := c.Account(ctx, tx.Account(field.Account), "current")
			if err != nil {
				return err
			}
			sequence = info.Root.Uint32(field.Sequence)
		}
		tx.Set(field.Sequence, xahau.Uint32(sequence))
	}
	if !tx.Has(field.LastLedgerSequence) {
		info, err := c.Ledger(ctx)
		if err != nil {
			return err
		}
		window := opt.Window
		if window == 0 {
			window = DefaultWindow
		}
		if info.Index+window < info.Index {
			return errors.New("the window is too large")
		}
		tx.Set(field.LastLedgerSequence, xahau.Uint32(info.Index+window))
	}
	if tx.Has(field.Fee) {
		return nil
	}
	fee, err := c.Fee(ctx, tx, opt.Signers)
	if err != nil {
		return err
	}
	if opt.MaxFee > 0 && fee > opt.MaxFee {
		return &FeeError{fee, opt.MaxFee}
	}
	tx.Set(field.Fee, xahau.Drops(fee))
	return nil
}

// Fee asks what a transaction costs, in drops, if this many sign it together (0
// for one alone).
func (c *Client) Fee(ctx context.Context, tx *xahau.Object, signers int) (int64, error) {
	unsigned := tx.Clone()
	unsigned.Delete(field.TxnSignature)
	unsigned.Delete(field.Signers)
	unsigned.Set(field.SigningPubKey, xahau.Blob{})
	unsigned.Set(field.Fee, xahau.Drops(0))
	blob, err := c.Definitions().Encode(unsigned)
	if err != nil {
		return 0, err
	}
	fee, err := c.baseFee(ctx, map[string]any{"tx_blob": hex.EncodeToString(blob)})
	if err != nil {
		return 0, err
	}
	if signers > 0 {
		base, err := c.baseFee(ctx, nil)
		if err != nil {
			return 0, err
		}
		fee += int64(signers) * base
	}
	return fee, nil
}

func (c *Client) baseFee(ctx context.Context, params map[string]any) (int64, error) {
	var answer struct {
		Drops struct {
			BaseFee json.RawMessage `json:"base_fee"`
		} `json:"drops"`
	}
	if err := c.Request(ctx, "fee", params, &answer); err != nil {
		return 0, err
	}
	text := string(answer.Drops.BaseFee)
	if unquoted, err := strconv.Unquote(text); err == nil {
		text = unquoted
	}
	fee, err := strconv.ParseInt(text, 10, 64)
	if err != nil || fee < 0 || fee > xahau.MaxDrops {
		return 0, fmt.Errorf("fee: the server gives no base_fee (%q)", text)
	}
	return fee, nil
}
