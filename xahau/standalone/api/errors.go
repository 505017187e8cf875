package api

import (
	"fmt"
	"net/http"
)

// Error is a refusal as servers send it.
type Error struct {
	Name    string // such as "actNotFound"
	Code    int    // 0 for names that have no number
	Message string
	// Extra is added to the answer.
	Extra map[string]any
	// Status is that of the HTTP answer for clients that ask for it.
	Status int
}

// Error gives name and message.
func (e *Error) Error() string { return e.Name + ": " + e.Message }

func (e *Error) put(m map[string]any) {
	m["error"] = e.Name
	if e.Code != 0 {
		m["error_code"] = e.Code
	}
	if e.Message != "" {
		m["error_message"] = e.Message
	}
	for k, v := range e.Extra {
		m[k] = v
	}
}

// with gives the same refusal with another message.
func (e *Error) with(format string, args ...any) *Error {
	c := *e
	c.Message = fmt.Sprintf(format, args...)
	return &c
}

// extra gives the same refusal with one more field.
func (e *Error) extra(key string, value any) *Error {
	c := *e
	c.Extra = map[string]any{key: value}
	for k, v := range e.Extra {
		c.Extra[k] = v
	}
	return &c
}

// The refusals of xahaud that are used here, with their numbers and messages.
var (
	errNoPermission     = &Error{Name: "noPermission", Code: 6, Message: "You don't have permission for this command."}
	errNoEvents         = &Error{Name: "noEvents", Code: 7, Message: "Current transport does not support events."}
	errTooBusy          = &Error{Name: "tooBusy", Code: 9, Message: "The server is too busy to help you now.", Status: http.StatusServiceUnavailable}
	errSlowDown         = &Error{Name: "slowDown", Code: 10, Message: "You are placing too much load on the server.", Status: http.StatusTooManyRequests}
	errActNotFound      = &Error{Name: "actNotFound", Code: 19, Message: "Account not found."}
	errNoNamespace      = &Error{Name: "namespaceNotFound", Code: 20, Message: "Namespace not found."}
	errLgrNotFound      = &Error{Name: "lgrNotFound", Code: 21, Message: "ledgerNotFound"}
	errTxnNotFound      = &Error{Name: "txnNotFound", Code: 29, Message: "Transaction not found."}
	errInvalidParams    = &Error{Name: "invalidParams", Code: 31, Message: "Invalid parameters."}
	errUnknownCommand   = &Error{Name: "unknownCmd", Code: 32, Message: "Unknown method."}
	errActMalformed     = &Error{Name: "actMalformed", Code: 35, Message: "Account malformed."}
	errBadMarket        = &Error{Name: "badMarket", Code: 42, Message: "No such market."}
	errBadSeed          = &Error{Name: "badSeed", Code: 44, Message: "Disallowed seed."}
	errCommandMissing   = &Error{Name: "commandMissing", Code: 47, Message: "Missing command entry."}
	errDstAmtMalformed  = &Error{Name: "dstAmtMalformed", Code: 51, Message: "Destination amount/currency/issuer is malformed."}
	errDstIsrMalformed  = &Error{Name: "dstIsrMalformed", Code: 53, Message: "Destination issuer is malformed."}
	errLgrIdxsInvalid   = &Error{Name: "lgrIdxsInvalid", Code: 57, Message: "Ledger indexes invalid."}
	errSrcCurMalformed  = &Error{Name: "srcCurMalformed", Code: 69, Message: "Source currency is malformed."}
	errSrcIsrMalformed  = &Error{Name: "srcIsrMalformed", Code: 70, Message: "Source issuer is malformed."}
	errStreamMalformed  = &Error{Name: "malformedStream", Code: 71, Message: "Stream malformed."}
	errInternal         = &Error{Name: "internal", Code: 73, Message: "Internal error.", Status: http.StatusInternalServerError}
	errNotSupported     = &Error{Name: "notSupported", Code: 75, Message: "Operation not supported."}
	errBadKeyType       = &Error{Name: "badKeyType", Code: 76, Message: "Bad key type."}
	errExcessiveRange   = &Error{Name: "excessiveLgrRange", Code: 78, Message: "Ledger range exceeds 1000."}
	errInvalidRange     = &Error{Name: "invalidLgrRange", Code: 79, Message: "Ledger range is invalid."}
	errEntryNotFound    = &Error{Name: "entryNotFound", Message: "Requested ledger entry not found."}
	errMalformedRequest = &Error{Name: "malformedRequest", Message: "The request says in no known way which entry it wants."}
	errMalformedAddress = &Error{Name: "malformedAddress", Message: "An account is malformed."}
	errMalformedOwner   = &Error{Name: "malformedOwner", Message: "The owner is malformed."}
	errMalformedMoney   = &Error{Name: "malformedCurrency", Message: "The currency is malformed."}
	errInvalidTx        = &Error{Name: "invalidTransaction", Message: "The transaction cannot be read."}
	errNotStandAlone    = &Error{Name: "notStandAlone", Message: "This server closes ledgers by the clock; ledger_accept needs --close-interval manual."}
	errJSONInvalid      = &Error{Name: "jsonInvalid", Message: "The message is not a JSON object."}
	errBadVersion       = &Error{Name: "invalid_API_version", Message: "This server has versions 1 and 2 of the API."}
	errShutDown         = &Error{Name: "noNetwork", Code: 17, Message: "The server is shutting down.", Status: http.StatusServiceUnavailable}
)

func missing(name string) *Error { return errInvalidParams.with("Missing field '%s'.", name) }
func invalid(name string) *Error { return errInvalidParams.with("Invalid field '%s'.", name) }
func expected(name, kind string) *Error {
	return errInvalidParams.with("Invalid field '%s', not %s.", name, kind)
}
