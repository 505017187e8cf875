package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"evernode/xahau"
	"evernode/xahau/client"
	"evernode/xahau/field"
	"evernode/xahau/standalone"
	"evernode/xahau/ter"
)

// asking is what all commands that ask a server have in common.
type asking struct {
	server string
	asJSON bool
}

// askTimeout is how long a command waits for a server.
const askTimeout = 30 * time.Second

func (a *asking) flags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&a.server, "server", "ws://"+ledgerListen, "`URL` of the server, ws, wss, http or https")
	cmd.Flags().BoolVar(&a.asJSON, "json", false, "print JSON")
	return cmd
}

// with connects to the server for the time of f.
func (a *asking) with(ctx context.Context, f func(ctx context.Context, c *client.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := client.New(client.Options{Servers: []string{a.server}})
	if err != nil {
		return usageError{err}
	}
	defer c.Close()
	if err = f(ctx, c); errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s did not answer in %s: %w", a.server, askTimeout, err)
	}
	return err
}

func printJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// object is an answer, or a part of one, as it came.
type object map[string]any

func (o object) text(name string) string {
	switch v := o[name].(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}

func (o object) object(name string) object {
	m, _ := o[name].(map[string]any)
	return m
}

func (o object) list(name string) []object {
	raw, _ := o[name].([]any)
	list := make([]object, 0, len(raw))
	for _, e := range raw {
		if m, ok := e.(map[string]any); ok {
			list = append(list, m)
		}
	}
	return list
}

// ask sends a request and reads the answer.
func ask(ctx context.Context, c *client.Client, command string, params map[string]any) (object, error) {
	var o object
	err := c.Request(ctx, command, params, &o)
	return o, err
}

// native writes an amount as servers show it for people.
func native(v any) string {
	switch v := v.(type) {
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return v
		}
		return drops(n)
	case map[string]any:
		o := object(v)
		return fmt.Sprintf("%s %s of %s", o.text("value"), o.text("currency"), o.text("issuer"))
	}
	return fmt.Sprint(v)
}

func drops(n int64) string {
	s := new(big.Rat).SetFrac64(n, 1_000_000).FloatString(6)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".") + " XAH"
}

// parseXAH reads an amount of XAH with up to six decimals.
func parseXAH(s string) (int64, error) {
	r, ok := new(big.Rat).SetString(s)
	if ok && !strings.ContainsAny(s, "/eExXpP_") {
		r.Mul(r, big.NewRat(1_000_000, 1))
		if r.IsInt() && r.Num().IsInt64() && r.Sign() > 0 && r.Num().Int64() <= xahau.MaxDrops {
			return r.Num().Int64(), nil
		}
	}
	return 0, usageError{fmt.Errorf("%q is no amount of XAH; write a number above 0 with at most six decimals", s)}
}

func parseAddress(s string) (xahau.AccountID, error) {
	a, err := xahau.ParseAddress(s)
	if err != nil {
		return a, usageError{err}
	}
	return a, nil
}

func ledgerAcceptCommand() *cobra.Command {
	var a asking
	var count int
	cmd := &cobra.Command{
		Use:   "accept",
		Short: "Close the open ledger of a server that does not close it by the clock",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 1 {
				return usageError{errors.New("--count must be above 0")}
			}
			return a.with(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				var o object
				for range count {
					var err error
					if o, err = ask(ctx, c, "ledger_accept", nil); err != nil {
						return err
					}
				}
				if a.asJSON {
					return printJSON(cmd.OutOrStdout(), o)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "ledger %s is open now\n", o.text("ledger_current_index"))
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&count, "count", 1, "how many ledgers to close")
	return a.flags(cmd)
}

func ledgerFundCommand() *cobra.Command {
	var a asking
	var amount string
	var fresh bool
	cmd := &cobra.Command{
		Use:   "fund [ADDRESS]",
		Short: "Pay an account from the first account of a ledger of your own",
		Long: `Pay an account from the first account of a ledger of your own, which makes the
account if it is not there. With --new, make up an account and print its seed.

Where ledgers are closed by hand, this closes one.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := parseXAH(amount)
			if err != nil {
				return err
			}
			if fresh == (len(args) == 1) {
				return usageError{errors.New("name the account's ADDRESS, or use --new")}
			}
			var to xahau.AccountID
			result := object{"amount": fmt.Sprint(n)}
			if fresh {
				seed, err := xahau.NewSeed(rand.Reader, xahau.Secp256k1)
				if err != nil {
					return err
				}
				to = seed.KeyPair().Account()
				result["seed"] = seed.Secret()
			} else if to, err = parseAddress(args[0]); err != nil {
				return err
			}
			result["account"] = to.String()
			return a.with(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				if err := payFromMaster(ctx, c, to, n, result); err != nil {
					return err
				}
				if a.asJSON {
					return printJSON(cmd.OutOrStdout(), result)
				}
				w := cmd.OutOrStdout()
				fmt.Fprintf(w, "account  %s\n", result.text("account"))
				if fresh {
					fmt.Fprintf(w, "seed     %s\n", result.text("seed"))
				}
				fmt.Fprintf(w, "received %s in ledger %v, transaction %s\n", drops(n), result["ledger_index"], result.text("hash"))
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&amount, "amount", "1000", "`XAH` to pay")
	cmd.Flags().BoolVar(&fresh, "new", false, "make up a new account")
	return a.flags(cmd)
}

// payFromMaster pays an account and notes where in result.
func payFromMaster(ctx context.Context, c *client.Client, to xahau.AccountID, amount int64, result object) error {
	keys, err := standalone.Master()
	if err != nil {
		return err
	}
	t := xahau.Payment(keys.Account(), to, xahau.Drops(amount))
	if err := c.Autofill(ctx, t, client.AutofillOptions{}); err != nil {
		return err
	}
	signed, err := c.Definitions().Sign(t, keys)
	if err != nil {
		return err
	}
	o, err := ask(ctx, c, "submit", map[string]any{"tx_blob": fmt.Sprintf("%X", signed.Blob)})
	if err != nil {
		return err
	}
	if o.text("engine_result") != "tesSUCCESS" {
		return fmt.Errorf("the payment was refused: %s: %s", o.text("engine_result"), o.text("engine_result_message"))
	}
	// A server that closes by the clock refuses this, and closes by itself.
	if _, err := ask(ctx, c, "ledger_accept", nil); err != nil && !client.IsServerError(err, "notStandAlone") {
		return err
	}
	last := signed.Tx.Uint32(field.LastLedgerSequence)
	for {
		tx, err := c.Lookup(ctx, signed.ID)
		if err != nil {
			return err
		}
		if tx != nil {
			if tx.Result != ter.TesSUCCESS {
				return fmt.Errorf("the payment failed: %s", tx.Result)
			}
			result["hash"], result["ledger_index"] = tx.Hash.String(), tx.Ledger
			return nil
		}
		now, err := c.Ledger(ctx)
		if err != nil {
			return err
		}
		if now.Index >= last {
			return fmt.Errorf("the payment did not get into a ledger up to %d", last)
		}
		if _, err := c.WaitLedger(ctx, now.Index+1); err != nil {
			return err
		}
	}
}

func ledgerAccountCommand() *cobra.Command {
	var a asking
	var transactions int
	cmd := &cobra.Command{
		Use:   "account ADDRESS",
		Short: "Show an account: its balances, what it owns, its last transactions",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseAddress(args[0])
			if err != nil {
				return err
			}
			if transactions < 0 || transactions > 200 {
				return usageError{errors.New("--transactions must be 0 to 200")}
			}
			return a.with(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				params := func(more map[string]any) map[string]any {
					m := map[string]any{"account": id.String(), "ledger_index": "validated"}
					for k, v := range more {
						m[k] = v
					}
					return m
				}
				info, err := ask(ctx, c, "account_info", params(map[string]any{"signer_lists": true}))
				if err != nil {
					return err
				}
				lines, err := ask(ctx, c, "account_lines", params(nil))
				if err != nil {
					return err
				}
				objects, err := ask(ctx, c, "account_objects", params(nil))
				if err != nil {
					return err
				}
				history := object{}
				if transactions > 0 {
					if history, err = ask(ctx, c, "account_tx", map[string]any{"account": id.String(), "limit": transactions}); err != nil {
						return err
					}
				}
				if a.asJSON {
					return printJSON(cmd.OutOrStdout(), object{"ledger_index": info["ledger_index"], "account_data": info["account_data"],
						"account_flags": info["account_flags"], "lines": lines["lines"], "account_objects": objects["account_objects"],
						"transactions": history["transactions"]})
				}
				printAccount(cmd.OutOrStdout(), info, lines, objects, history)
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&transactions, "transactions", 10, "how many of the last transactions to show")
	return a.flags(cmd)
}

func printAccount(w io.Writer, info, lines, objects, history object) {
	data := info.object("account_data")
	fmt.Fprintf(w, "account   %s in ledger %s\n", data.text("Account"), info.text("ledger_index"))
	fmt.Fprintf(w, "balance   %s\n", native(data["Balance"]))
	fmt.Fprintf(w, "sequence  %s\n", data.text("Sequence"))
	fmt.Fprintf(w, "owns      %s entries\n", data.text("OwnerCount"))
	for _, name := range []string{"RegularKey", "MessageKey", "Domain", "WalletLocator"} {
		if v := data.text(name); v != "" {
			fmt.Fprintf(w, "%s  %s\n", name, v)
		}
	}
	var set []string
	for name, v := range info.object("account_flags") {
		if v == true {
			set = append(set, name)
		}
	}
	slices.Sort(set)
	if len(set) > 0 {
		fmt.Fprintf(w, "flags     %s\n", strings.Join(set, ", "))
	}
	for _, l := range lines.list("lines") {
		fmt.Fprintf(w, "line      %s %s with %s, limit %s\n", l.text("balance"), l.text("currency"), l.text("account"), l.text("limit"))
	}
	for _, o := range objects.list("account_objects") {
		if t := o.text("LedgerEntryType"); t != "RippleState" {
			fmt.Fprintf(w, "%-9s %s\n", t, o.text("index"))
		}
	}
	if objects["marker"] != nil {
		fmt.Fprintln(w, "          and more")
	}
	for _, e := range history.list("transactions") {
		t := e.object("tx")
		fmt.Fprintf(w, "ledger %-8s %s %s %s\n", t.text("ledger_index"), t.text("hash"), t.text("TransactionType"), e.object("meta").text("TransactionResult"))
	}
}

func ledgerTxCommand() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "tx HASH",
		Short: "Show a transaction, what it did, and which hooks ran",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := xahau.ParseHash256(args[0])
			if err != nil {
				return usageError{fmt.Errorf("hash of a transaction: %w", err)}
			}
			return a.with(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				o, err := ask(ctx, c, "tx", map[string]any{"transaction": id.String()})
				if err != nil {
					return err
				}
				if a.asJSON {
					return printJSON(cmd.OutOrStdout(), o)
				}
				printTransaction(cmd.OutOrStdout(), o)
				return nil
			})
		},
	}
	return a.flags(cmd)
}

func printTransaction(w io.Writer, o object) {
	meta := o.object("meta")
	fmt.Fprintf(w, "%s %s\n", o.text("TransactionType"), o.text("hash"))
	if o["validated"] == true {
		fmt.Fprintf(w, "ledger      %s, place %s\n", o.text("ledger_index"), meta.text("TransactionIndex"))
		fmt.Fprintf(w, "result      %s\n", meta.text("TransactionResult"))
	} else {
		fmt.Fprintln(w, "ledger      none yet")
	}
	fmt.Fprintf(w, "account     %s, sequence %s\n", o.text("Account"), o.text("Sequence"))
	if v := o.text("Destination"); v != "" {
		fmt.Fprintf(w, "destination %s\n", v)
	}
	if o["Amount"] != nil {
		fmt.Fprintf(w, "amount      %s\n", native(o["Amount"]))
	}
	if meta["delivered_amount"] != nil {
		fmt.Fprintf(w, "delivered   %s\n", native(meta["delivered_amount"]))
	}
	fmt.Fprintf(w, "fee         %s\n", native(o["Fee"]))
	for _, n := range meta.list("AffectedNodes") {
		for kind := range n {
			e := n.object(kind)
			fmt.Fprintf(w, "%-12s%s %s\n", strings.ToLower(strings.TrimSuffix(kind, "Node")), e.text("LedgerEntryType"), e.text("LedgerIndex"))
		}
	}
	for _, x := range meta.list("HookExecutions") {
		e := x.object("HookExecution")
		fmt.Fprintf(w, "hook        %s on %s: %s, code %s, %s instructions, %s emitted, %s entries of state changed\n", e.text("HookHash"), e.text("HookAccount"),
			hookResult(e.text("HookResult")), e.text("HookReturnCode"), e.text("HookInstructionCount"), e.text("HookEmitCount"), e.text("HookStateChangeCount"))
		if s := e.text("HookReturnString"); s != "" {
			fmt.Fprintf(w, "            says %s\n", readable(s))
		}
	}
	for _, x := range meta.list("HookEmissions") {
		e := x.object("HookEmission")
		fmt.Fprintf(w, "emitted     %s by %s\n", e.text("EmittedTxnID"), e.text("HookHash"))
	}
}

// hookResult names how a run of a hook ended.
func hookResult(s string) string {
	switch s {
	case "1":
		return "ran against a wall"
	case "2":
		return "rolled back"
	case "3":
		return "accepted"
	}
	return "result " + s
}

// readable gives bytes in hex as quoted text if they are text.
func readable(s string) string {
	b := make([]byte, len(s)/2)
	for i := range b {
		n, err := strconv.ParseUint(s[2*i:2*i+2], 16, 8)
		if err != nil {
			return s
		}
		b[i] = byte(n)
	}
	text := strings.TrimRight(string(b), "\x00")
	for _, r := range text {
		if r < ' ' || r > '~' {
			return s
		}
	}
	return strconv.Quote(text)
}

func ledgerHookCommand() *cobra.Command {
	var a asking
	var namespace string
	cmd := &cobra.Command{
		Use:   "hook ADDRESS",
		Short: "Show the hooks of an account, and their state",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseAddress(args[0])
			if err != nil {
				return err
			}
			if namespace != "" {
				if _, err := xahau.ParseHash256(namespace); err != nil {
					return usageError{fmt.Errorf("--namespace: %w", err)}
				}
			}
			return a.with(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return showHooks(ctx, cmd.OutOrStdout(), c, id, namespace, a.asJSON)
			})
		},
	}
	cmd.Flags().StringVar(&namespace, "namespace", "", "show the state in this namespace, in `HEX`, only")
	return a.flags(cmd)
}

func showHooks(ctx context.Context, w io.Writer, c *client.Client, id xahau.AccountID, namespace string, asJSON bool) error {
	info, err := ask(ctx, c, "account_info", map[string]any{"account": id.String(), "ledger_index": "validated"})
	if err != nil {
		return err
	}
	index := info["ledger_index"]
	hooks := object{}
	entry, err := ask(ctx, c, "ledger_entry", map[string]any{"hook": map[string]any{"account": id.String()}, "ledger_index": index})
	switch {
	case err == nil:
		hooks = entry.object("node")
	case !client.IsServerError(err, "entryNotFound"):
		return err
	}
	names := []string{namespace}
	if namespace == "" {
		names = nil
		list, _ := info.object("account_data")["HookNamespaces"].([]any)
		for _, n := range list {
			names = append(names, fmt.Sprint(n))
		}
	}
	state := map[string][]object{}
	for _, n := range names {
		params := map[string]any{"account": id.String(), "namespace_id": n, "ledger_index": index}
		for {
			o, err := ask(ctx, c, "account_namespace", params)
			if err != nil {
				return err
			}
			state[n] = append(state[n], o.list("namespace_entries")...)
			if o["marker"] == nil {
				break
			}
			params["marker"] = o["marker"]
		}
	}
	if asJSON {
		return printJSON(w, object{"ledger_index": index, "hooks": hooks["Hooks"], "state": state})
	}
	fmt.Fprintf(w, "account %s in ledger %v\n", id, info.text("ledger_index"))
	for i, e := range hooks.list("Hooks") {
		h := e.object("Hook")
		if h.text("HookHash") == "" {
			continue
		}
		fmt.Fprintf(w, "hook %d  %s\n", i, h.text("HookHash"))
		for _, name := range []string{"HookOn", "HookNamespace", "Flags"} {
			if v := h.text(name); v != "" {
				fmt.Fprintf(w, "        %s %s\n", name, v)
			}
		}
		for _, p := range h.list("HookParameters") {
			p = p.object("HookParameter")
			fmt.Fprintf(w, "        parameter %s = %s\n", p.text("HookParameterName"), p.text("HookParameterValue"))
		}
		for _, g := range h.list("HookGrants") {
			g = g.object("HookGrant")
			fmt.Fprintf(w, "        grant to %s %s\n", g.text("HookHash"), g.text("Authorize"))
		}
	}
	for _, n := range names {
		fmt.Fprintf(w, "state in namespace %s\n", n)
		for _, e := range state[n] {
			fmt.Fprintf(w, "        %s = %s\n", e.text("HookStateKey"), e.text("HookStateData"))
		}
	}
	return nil
}
