// Package ter names the results of the ledger's transaction engine by their
// numbers. The names are the ledger's, so that they can be looked up anywhere.
package ter

import "strconv"

// Code is a result: 0 for success, 100 and more for a transaction that only paid
// its fee, below 0 for one that is not in a ledger.
type Code int

// String is the ledger's name, such as "tecNO_DST".
func (c Code) String() string {
	if n, ok := names[c]; ok {
		return n
	}
	return strconv.Itoa(int(c))
}

// IsLocal, IsMalformed, IsFailure and IsRetry tell the classes below success:
// telX, temX, tefX, terX.
func (c Code) IsLocal() bool { return c >= -399 && c < -299 }

// IsMalformed is the class temX: no ledger would ever take the transaction.
func (c Code) IsMalformed() bool { return c >= -299 && c < -199 }

// IsFailure is the class tefX: this ledger's state does not let it in.
func (c Code) IsFailure() bool { return c >= -199 && c < -99 }

// IsRetry is the class terX: a later ledger might let it in.
func (c Code) IsRetry() bool { return c >= -99 && c < 0 }

// IsSuccess is the class tesX.
func (c Code) IsSuccess() bool { return c == TesSUCCESS }

// IsClaimed is the class tecX: the transaction is in the ledger but did nothing
// except pay its fee.
func (c Code) IsClaimed() bool { return c >= TecCLAIM }
