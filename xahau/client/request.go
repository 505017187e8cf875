package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ServerError is a server's refusal of a request, by its own name for it such as
// "actNotFound".
type ServerError struct {
	Name    string
	Code    int
	Message string
	// SearchedAll is what the server says with txnNotFound: whether it has all the
	// ledgers that were asked for. nil if it does not say.
	SearchedAll *bool
}

// Error names the refusal.
func (e *ServerError) Error() string {
	if e.Message != "" {
		return fmt.Sprintf("the server says %s: %s", e.Name, e.Message)
	}
	return "the server says " + e.Name
}

// IsServerError tells whether an error is a server's refusal with a name.
func IsServerError(err error, name string) bool {
	var s *ServerError
	return errors.As(err, &s) && s.Name == name
}

// busy are the refusals that only mean to come again later.
var busy = map[string]bool{
	"slowDown": true, "tooBusy": true, "noCurrent": true, "noClosed": true, "noNetwork": true, "amendmentBlocked": false,
}

// Request sends a command with parameters and reads the result into result,
// which may be nil. It waits for a connection, and sends the request again if
// the connection is lost before the answer or the server is busy, until ctx
// ends. The error is a *ServerError if the server refuses.
func (c *Client) Request(ctx context.Context, command string, params map[string]any, result any) error {
	raw, err := c.RequestRaw(ctx, command, params)
	if err != nil {
		return err
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(raw, result); err != nil {
		return fmt.Errorf("%s: the answer is malformed: %w", command, err)
	}
	return nil
}

// RequestRaw is Request for those who read the result themselves.
func (c *Client) RequestRaw(ctx context.Context, command string, params map[string]any) (json.RawMessage, error) {
	raw, _, err := c.request(ctx, command, params)
	return raw, err
}

// request also tells which connection answered.
func (c *Client) request(ctx context.Context, command string, params map[string]any) (json.RawMessage, *connection, error) {
	pause := c.opt.MinBackoff
	for {
		conn, err := c.connected(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", command, err)
		}
		raw, err := c.try(ctx, conn, command, params)
		var refusal *ServerError
		switch {
		case err == nil:
			return raw, conn, nil
		case errors.As(err, &refusal) && busy[refusal.Name], conn.socket == nil && errors.Is(err, errLost):
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			case <-c.ctx.Done():
			}
			pause = min(pause*2, c.opt.MaxBackoff)
		case !errors.Is(err, errLost):
			return nil, conn, fmt.Errorf("%s: %w", command, err)
		}
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("%s: %w: %w", command, ctx.Err(), err)
		}
		if c.ctx.Err() != nil {
			return nil, nil, fmt.Errorf("%s: %w", command, ErrClosed)
		}
	}
}

// try sends a request once. A server that does not answer in time is given up.
func (c *Client) try(ctx context.Context, conn *connection, command string, params map[string]any) (json.RawMessage, error) {
	limit, cancel := context.WithTimeout(ctx, c.opt.RequestTimeout)
	defer cancel()
	raw, err := conn.request(limit, command, params)
	if err != nil && ctx.Err() == nil && limit.Err() != nil && !errors.Is(err, errLost) {
		err = fmt.Errorf("%w: no answer to %s within %v", errLost, command, c.opt.RequestTimeout)
		conn.fail(err)
	}
	return raw, err
}

// Pages asks for a list such as account_objects, account_lines or
// account_namespace page by page, all of one ledger, and hands each page's result
// to page.
func (c *Client) Pages(ctx context.Context, command string, params map[string]any, page func(result json.RawMessage) error) error {
	p := map[string]any{}
	for k, v := range params {
		p[k] = v
	}
	for {
		raw, err := c.RequestRaw(ctx, command, p)
		if err != nil {
			return err
		}
		if err := page(raw); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		var next struct {
			Marker json.RawMessage `json:"marker"`
			Index  any             `json:"ledger_index"`
		}
		if err := json.Unmarshal(raw, &next); err != nil {
			return fmt.Errorf("%s: the answer is malformed: %w", command, err)
		}
		if len(next.Marker) == 0 || string(next.Marker) == "null" {
			return nil
		}
		p["marker"] = next.Marker
		if next.Index != nil {
			// All pages of one ledger, whatever closes in between.
			p["ledger_index"] = next.Index
		}
	}
}
