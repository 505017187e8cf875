package api

import (
	"slices"
	"strings"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/view"
)

// accountFlags are the flags of accounts by the names that account_info shows.
var accountFlags = map[string]uint32{
	"defaultRipple": xahau.LsfDefaultRipple, "depositAuth": xahau.LsfDepositAuth, "disableMasterKey": xahau.LsfDisableMaster,
	"disallowIncomingCheck": xahau.LsfDisallowIncomingCheck, "disallowIncomingNFTokenOffer": xahau.LsfDisallowIncomingNFTokenOffer,
	"disallowIncomingPayChan": xahau.LsfDisallowIncomingPayChan, "disallowIncomingTrustline": xahau.LsfDisallowIncomingTrustline,
	"disallowIncomingRemit": xahau.LsfDisallowIncomingRemit, "disallowIncomingXRP": xahau.LsfDisallowXRP,
	"globalFreeze": xahau.LsfGlobalFreeze, "noFreeze": xahau.LsfNoFreeze, "passwordSpent": xahau.LsfPasswordSpent,
	"requireAuthorization": xahau.LsfRequireAuth, "requireDestinationTag": xahau.LsfRequireDestTag,
	"tshCollect": xahau.LsfTshCollect, "uriTokenIssuer": xahau.LsfURITokenIssuer,
}

// about reads the account and the ledger that a request is about, and gives f the
// account's root.
func (r *request) about(f func(v view.Reader, a xahau.AccountID, root *xahau.Object, to map[string]any) error) (map[string]any, error) {
	name := "account"
	if !r.params.has(name) && r.params.has("ident") {
		name = "ident"
	}
	a, err := r.params.account(name)
	if err != nil {
		return nil, err
	}
	l, err := r.ledger()
	if err != nil {
		return nil, err
	}
	m := r.answer(l)
	err = r.read(l, func(v view.Reader) error {
		root := v.Read(keylet.Account(a))
		if root == nil {
			if v.Err() != nil {
				return nil // read tells it
			}
			e := errActNotFound.extra("account", a.String())
			for k, x := range r.answer(l) {
				e = e.extra(k, x)
			}
			return e
		}
		m["account"] = a.String()
		return f(v, a, root, m)
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

func accountInfo(r *request) (map[string]any, error) {
	var lists, queue bool
	if err := r.params.flags(map[string]*bool{"signer_lists": &lists, "queue": &queue}); err != nil {
		return nil, err
	}
	return r.about(func(v view.Reader, a xahau.AccountID, root *xahau.Object, m map[string]any) error {
		delete(m, "account")
		data, err := r.show(keylet.Account(a).Index, root)
		if err != nil {
			return err
		}
		m["account_data"] = data
		flags := make(map[string]any, len(accountFlags))
		for name, bit := range accountFlags {
			flags[name] = root.Flags()&bit != 0
		}
		m["account_flags"] = flags
		if queue {
			m["queue_data"] = map[string]any{"txn_count": 0}
		}
		if !lists {
			return nil
		}
		list := []any{}
		k := keylet.SignerList(a)
		if o := v.Read(k); o != nil {
			entry, err := r.show(k.Index, o)
			if err != nil {
				return err
			}
			list = append(list, entry)
		}
		if r.version > 1 {
			m["signer_lists"] = list
		} else {
			data["signer_lists"] = list
		}
		return nil
	})
}

// scanned is how many entries of a directory one request looks at.
const scanned = 10_000

// list walks a directory from the request's marker on. take adds an entry to the
// answer, or leaves it; limit says how many it may take. What comes next is noted
// in the answer as marker.
func (r *request) list(v view.Reader, root keylet.Keylet, limit int, m map[string]any, take func(index xahau.Hash256, o *xahau.Object) (bool, error)) error {
	page, entry, err := r.marker(root)
	if err != nil {
		return err
	}
	found := entry.IsZero()
	seen, taken := 0, 0
	for {
		o := v.Read(keylet.Keylet{Type: xahau.EntryDirectoryNode, Index: page})
		if o == nil || o.Hash(field.RootIndex) != root.Index {
			if !entry.IsZero() {
				return invalid("marker")
			}
			return nil // the account owns nothing
		}
		for _, index := range o.Vector(field.Indexes) {
			if !found && index != entry {
				continue
			}
			found = true
			if taken >= limit || seen >= scanned {
				m["marker"], m["limit"] = page.String()+","+index.String(), limit
				return nil
			}
			seen++
			e := v.Read(keylet.Keylet{Index: index})
			if e == nil {
				continue
			}
			ok, err := take(index, e)
			if err != nil {
				return err
			}
			if ok {
				taken++
			}
		}
		if !found {
			return invalid("marker")
		}
		next := o.Uint64(field.IndexNext)
		if next == 0 {
			return nil
		}
		page = keylet.Page(root.Index, next).Index
	}
}

// marker gives the page and the entry at which a list of entries goes on.
func (r *request) marker(root keylet.Keylet) (page, entry xahau.Hash256, err error) {
	if !r.params.has("marker") {
		return root.Index, entry, nil
	}
	s, err := r.params.text("marker")
	if err != nil {
		return page, entry, err
	}
	a, b, _ := strings.Cut(s, ",")
	if page, err = xahau.ParseHash256(a); err == nil {
		entry, err = xahau.ParseHash256(b)
	}
	if err != nil || entry.IsZero() {
		return page, entry, invalid("marker")
	}
	return page, entry, nil
}

// entryTypes are the types of entries by the names that requests use.
var entryTypes = map[string]xahau.EntryType{
	"account": xahau.EntryAccountRoot, "amendments": xahau.EntryAmendments, "check": xahau.EntryCheck, "deposit_preauth": xahau.EntryDepositPreauth,
	"directory": xahau.EntryDirectoryNode, "emitted_txn": xahau.EntryEmittedTxn, "escrow": xahau.EntryEscrow, "fee": xahau.EntryFeeSettings,
	"hashes": xahau.EntryLedgerHashes, "hook": xahau.EntryHook, "hook_definition": xahau.EntryHookDefinition, "hook_state": xahau.EntryHookState,
	"import_vlseq": xahau.EntryImportVLSequence, "nft_offer": xahau.EntryNFTokenOffer, "nft_page": xahau.EntryNFTokenPage, "offer": xahau.EntryOffer,
	"payment_channel": xahau.EntryPayChannel, "signer_list": xahau.EntrySignerList, "state": xahau.EntryRippleState, "ticket": xahau.EntryTicket,
	"unl_report": xahau.EntryUNLReport, "uri_token": xahau.EntryURIToken,
}

// entryType gives the type of entries that a request asks for, EntryAny for all.
func (r *request) entryType() (xahau.EntryType, error) {
	name, err := r.params.text("type")
	if err != nil || name == "" {
		return xahau.EntryAny, err
	}
	if t, ok := entryTypes[name]; ok {
		return t, nil
	}
	if t, ok := r.s.defs.EntryType(name); ok {
		return t, nil
	}
	return 0, invalid("type")
}

func accountObjects(r *request) (map[string]any, error) {
	limit, err := r.params.limit(10, 200, 400)
	if err != nil {
		return nil, err
	}
	want, err := r.entryType()
	if err != nil {
		return nil, err
	}
	blockers, err := r.params.flag("deletion_blockers_only")
	if err != nil {
		return nil, err
	}
	return r.about(func(v view.Reader, a xahau.AccountID, root *xahau.Object, m map[string]any) error {
		list := []any{}
		err := r.list(v, keylet.OwnerDirectory(a), limit, m, func(index xahau.Hash256, o *xahau.Object) (bool, error) {
			t := o.EntryType()
			if want != xahau.EntryAny && t != want {
				return false, nil
			}
			if blockers && !slices.Contains([]xahau.EntryType{xahau.EntryCheck, xahau.EntryEscrow, xahau.EntryPayChannel,
				xahau.EntryRippleState, xahau.EntryURIToken, xahau.EntryHook, xahau.EntryNFTokenPage}, t) {
				return false, nil
			}
			e, err := r.show(index, o)
			list = append(list, e)
			return true, err
		})
		m["account_objects"] = list
		return err
	})
}

func accountNamespace(r *request) (map[string]any, error) {
	limit, err := r.params.limit(10, 200, 400)
	if err != nil {
		return nil, err
	}
	ns, err := r.params.hash("namespace_id")
	if err != nil {
		return nil, err
	}
	return r.about(func(v view.Reader, a xahau.AccountID, root *xahau.Object, m map[string]any) error {
		dir := keylet.HookStateDirectory(a, ns)
		if !view.Exists(v, dir) {
			return errNoNamespace
		}
		list := []any{}
		err := r.list(v, dir, limit, m, func(index xahau.Hash256, o *xahau.Object) (bool, error) {
			e, err := r.show(index, o)
			list = append(list, e)
			return true, err
		})
		m["namespace_entries"], m["namespace_id"] = list, ns.String()
		return err
	})
}

func accountLines(r *request) (map[string]any, error) {
	limit, err := r.params.limit(10, 200, 400)
	if err != nil {
		return nil, err
	}
	var peer xahau.AccountID
	onlyPeer := r.params.has("peer")
	if onlyPeer {
		if peer, err = r.params.account("peer"); err != nil {
			return nil, err
		}
	}
	ignoreDefault, err := r.params.flag("ignore_default")
	if err != nil {
		return nil, err
	}
	return r.about(func(v view.Reader, a xahau.AccountID, root *xahau.Object, m map[string]any) error {
		list := []any{}
		err := r.list(v, keylet.OwnerDirectory(a), limit, m, func(_ xahau.Hash256, o *xahau.Object) (bool, error) {
			if o.EntryType() != xahau.EntryRippleState {
				return false, nil
			}
			other := lineOther(o, a)
			side := view.SideOf(a, other)
			if onlyPeer && other != peer || ignoreDefault && o.Flags()&side.Reserve == 0 {
				return false, nil
			}
			list = append(list, showLine(o, a, other))
			return true, nil
		})
		m["lines"] = list
		return err
	})
}

// lineOther is the other account of a trust line.
func lineOther(o *xahau.Object, a xahau.AccountID) xahau.AccountID {
	if low := o.Amount(field.LowLimit).Issuer(); low != a {
		return low
	}
	return o.Amount(field.HighLimit).Issuer()
}

// value is an issued amount as a number.
func value(a xahau.Amount) string { return a.Value().String() }

func showLine(o *xahau.Object, a, other xahau.AccountID) map[string]any {
	mine, theirs := view.SideOf(a, other), view.SideOf(other, a)
	flags := o.Flags()
	m := map[string]any{
		"account": other.String(), "balance": value(mine.Signed(o.Amount(field.Balance))),
		"currency": o.Amount(field.Balance).Currency().String(),
		"limit":    value(o.Amount(mine.Limit)), "limit_peer": value(o.Amount(theirs.Limit)),
		"quality_in": o.Uint32(mine.QualityIn), "quality_out": o.Uint32(mine.QualityOut),
		"no_ripple": flags&mine.NoRipple != 0, "no_ripple_peer": flags&theirs.NoRipple != 0,
	}
	for name, bit := range map[string]uint32{"authorized": mine.Auth, "peer_authorized": theirs.Auth, "freeze": mine.Freeze, "freeze_peer": theirs.Freeze} {
		if flags&bit != 0 {
			m[name] = true
		}
	}
	return m
}

// lines calls f with each trust line of an account.
func lines(v view.Reader, a xahau.AccountID, f func(o *xahau.Object, other xahau.AccountID)) {
	for index := range view.Dir(v, keylet.OwnerDirectory(a)) {
		if o := v.Read(keylet.Keylet{Type: xahau.EntryRippleState, Index: index}); o != nil {
			f(o, lineOther(o, a))
		}
	}
}

func accountCurrencies(r *request) (map[string]any, error) {
	return r.about(func(v view.Reader, a xahau.AccountID, root *xahau.Object, m map[string]any) error {
		delete(m, "account")
		send, receive := map[string]bool{}, map[string]bool{}
		lines(v, a, func(o *xahau.Object, other xahau.AccountID) {
			mine, theirs := view.SideOf(a, other), view.SideOf(other, a)
			balance := mine.Signed(o.Amount(field.Balance))
			currency := balance.Currency().String()
			if balance.Value().Cmp(o.Amount(mine.Limit).Value()) < 0 {
				receive[currency] = true
			}
			if balance.Negate().Value().Cmp(o.Amount(theirs.Limit).Value()) < 0 {
				send[currency] = true
			}
		})
		sorted := func(set map[string]bool) []string {
			list := make([]string, 0, len(set))
			for c := range set {
				list = append(list, c)
			}
			slices.Sort(list)
			return list
		}
		m["send_currencies"], m["receive_currencies"] = sorted(send), sorted(receive)
		return nil
	})
}

func gatewayBalances(r *request) (map[string]any, error) {
	hot := map[xahau.AccountID]bool{}
	if r.params.has("hotwallet") {
		names, err := r.params.texts("hotwallet")
		if err != nil {
			return nil, err
		}
		for _, s := range names {
			a, err := parseAccount(s)
			if err != nil {
				return nil, &Error{Name: "invalidHotWallet", Code: 30, Message: "A hot wallet is malformed."}
			}
			hot[a] = true
		}
	}
	return r.about(func(v view.Reader, a xahau.AccountID, root *xahau.Object, m map[string]any) error {
		owed := map[string]xahau.Amount{}
		parts := map[string]map[string][]any{}
		put := func(part string, other xahau.AccountID, amount xahau.Amount) {
			if parts[part] == nil {
				parts[part] = map[string][]any{}
			}
			parts[part][other.String()] = append(parts[part][other.String()],
				map[string]any{"currency": amount.Currency().String(), "value": value(amount)})
		}
		var failed error
		lines(v, a, func(o *xahau.Object, other xahau.AccountID) {
			balance := view.SideOf(a, other).Signed(o.Amount(field.Balance))
			switch {
			case balance.Signum() == 0:
			case hot[other]:
				put("balances", other, balance.Negate())
			case balance.Signum() > 0:
				put("assets", other, balance)
			case o.Flags()&view.SideOf(a, other).Freeze != 0:
				put("frozen_balances", other, balance.Negate())
			default:
				currency := balance.Currency().String()
				sum, ok := owed[currency]
				if !ok {
					owed[currency] = balance.Negate()
					return
				}
				sum, err := sum.Sub(balance)
				if err != nil && failed == nil {
					failed = err
				}
				owed[currency] = sum
			}
		})
		if len(owed) > 0 {
			obligations := make(map[string]string, len(owed))
			for c, sum := range owed {
				obligations[c] = value(sum)
			}
			m["obligations"] = obligations
		}
		for part, list := range parts {
			m[part] = list
		}
		return failed
	})
}

// texts gives a field that is a text or a list of texts.
func (p params) texts(name string) ([]string, error) {
	if s, err := p.text(name); err == nil {
		return []string{s}, nil
	}
	return p.list(name)
}
