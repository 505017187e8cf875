package tx

import (
	"context"
	"log/slog"
	"slices"

	"evernode/xahau"
	"evernode/xahau/field"
	"evernode/xahau/keylet"
	"evernode/xahau/standalone/hook"
	"evernode/xahau/standalone/view"
	"evernode/xahau/ter"
)

// What SetHook costs, in drops for each byte.
const (
	feeCodeByte      = 500
	feeParameterByte = 1
)

// maxGrants is how many grants a hook has at most.
const maxGrants = 8

// Validator tells whether code may be installed as a hook; hook.Machine is one.
type Validator interface {
	Validate(ctx context.Context, code []byte) (hook.Verdict, error)
}

// SetHook gives the transactor that installs hooks. Why code or a change was
// refused is told to log, which may be nil.
func SetHook(v Validator, log *slog.Logger) Table {
	s := setHook{v, log}
	return Table{xahau.TxSetHook: {Preflight: s.preflight, Preclaim: s.preclaim, Apply: s.apply, Fee: s.fee}}
}

type setHook struct {
	validator Validator
	log       *slog.Logger
}

func (s setHook) refuse(t *xahau.Object, why string, err error) ter.Code {
	if s.log != nil {
		attrs := []any{"account", t.Account(field.Account).String(), "reason", why}
		if err != nil {
			attrs = append(attrs, "error", err)
		}
		s.log.Info("SetHook refused", attrs...)
	}
	return ter.TemMALFORMED
}

// operation is what an element of SetHook does with the hook at its place; it is
// told by the fields that are there.
type operation uint8

const (
	opInvalid operation = iota
	opNone
	opCreate
	opInstall
	opUpdate
	opDelete
	opDeleteNamespace
)

// hookFields are the fields of an element that is not blank.
var hookFields = []field.Code{field.CreateCode, field.HookHash, field.HookNamespace, field.HookParameters, field.HookOn,
	field.HookOnOutgoing, field.HookOnIncoming, field.HookGrants, field.HookApiVersion, field.Flags, field.HookCanEmit, field.HookName}

func operationOf(o *xahau.Object) operation {
	code, hasCode := xahau.Lookup[xahau.Blob](o, field.CreateCode)
	hasHash := o.Has(field.HookHash)
	switch {
	case hasHash && hasCode, o.Has(field.HookOnOutgoing) != o.Has(field.HookOnIncoming):
		return opInvalid
	case hasHash:
		return opInstall
	case hasCode && len(code) > 0:
		return opCreate
	case hasCode:
		return opDelete
	case o.Len() == 0:
		return opNone
	case o.Has(field.HookNamespace) && o.Flags()&xahau.HsfNSDelete != 0:
		return opDeleteNamespace
	}
	return opUpdate
}

func (s setHook) preflight(t *xahau.Object, _ *view.Ledger) ter.Code {
	list := t.Array(field.Hooks)
	if len(list) == 0 || len(list) > hook.MaxChain {
		return s.refuse(t, "Hooks must have 1 to 10 elements", nil)
	}
	blank := true
	for _, e := range list {
		if e.Field != field.Hook {
			return s.refuse(t, "Hooks contains something else", nil)
		}
		if e.Object.Len() == 0 {
			continue
		}
		blank = false
		for code := range e.Object.All() {
			if !slices.Contains(hookFields, code) {
				return s.refuse(t, "a field does not belong into a hook", nil)
			}
		}
		if e.Object.Has(field.HookName) {
			return ter.TemDISABLED
		}
		if why := checkHookFields(t.Account(field.Account), e.Object); why != "" {
			return s.refuse(t, why, nil)
		}
		if operationOf(e.Object) == opCreate {
			if _, err := s.validator.Validate(context.Background(), e.Object.Blob(field.CreateCode)); err != nil {
				return s.refuse(t, "CreateCode", err)
			}
		}
	}
	if blank {
		return s.refuse(t, "all Hooks are blank", nil)
	}
	return ter.TesSUCCESS
}

// checkHookFields tells what is wrong with an element, "" if nothing.
func checkHookFields(account xahau.AccountID, o *xahau.Object) string {
	if len(o.Blob(field.CreateCode)) > hook.MaxCode {
		return "CreateCode is too long"
	}
	if why := checkGrants(account, o.Array(field.HookGrants)); why != "" {
		return why
	}
	if why := checkHookParameters(o.Array(field.HookParameters)); why != "" {
		return why
	}
	hasOn, both := o.Has(field.HookOn), o.Has(field.HookOnOutgoing) && o.Has(field.HookOnIncoming)
	flags, hasFlags := o.Flags(), o.Has(field.Flags)
	op := operationOf(o)
	switch {
	case op == opInvalid:
		return "either CreateCode or HookHash, and HookOnOutgoing only with HookOnIncoming"
	case hasOn && both:
		return "either HookOn, or HookOnOutgoing and HookOnIncoming"
	case both && o.Hash(field.HookOnOutgoing) == o.Hash(field.HookOnIncoming):
		return "HookOnOutgoing and HookOnIncoming are the same"
	case o.Has(field.HookApiVersion) && o.Uint16(field.HookApiVersion) != 0:
		return "HookApiVersion must be 0"
	case op != opCreate && o.Has(field.HookApiVersion):
		return "HookApiVersion is only for new code"
	}
	switch op {
	case opDeleteNamespace:
		if o.Len() != 2 || flags != xahau.HsfNSDelete {
			return "who deletes a namespace gives HookNamespace and the flag NSDELETE, and nothing else"
		}
	case opDelete:
		switch {
		case o.Len() != 2 || !hasFlags:
			return "who deletes a hook gives an empty CreateCode and flags, and nothing else"
		case flags&xahau.HsfOverride == 0:
			return "deleting a hook takes the flag OVERRIDE"
		case flags&^(xahau.HsfOverride|xahau.HsfNSDelete|xahau.HsfCollect) != 0:
			return "unknown flags"
		}
	case opUpdate:
		if flags&(xahau.HsfOverride|xahau.HsfNSDelete) != 0 {
			return "an update takes neither OVERRIDE nor, without HookNamespace, NSDELETE"
		}
	case opCreate:
		switch {
		case !o.Has(field.HookNamespace):
			return "new code needs HookNamespace"
		case !o.Has(field.HookApiVersion):
			return "new code needs HookApiVersion"
		case !hasOn && !both:
			return "new code needs HookOn"
		}
	}
	return ""
}

func checkGrants(account xahau.AccountID, grants xahau.Array) string {
	if len(grants) > maxGrants {
		return "too many HookGrants"
	}
	type grant struct {
		hash xahau.Hash256
		to   xahau.AccountID
		any  bool
	}
	seen := make(map[grant]bool)
	for _, e := range grants {
		if e.Field != field.HookGrant {
			return "HookGrants contains something else"
		}
		to, one := xahau.Lookup[xahau.AccountID](e.Object, field.Authorize)
		g := grant{e.Object.Hash(field.HookHash), to, !one}
		switch {
		case one && to == account:
			return "a HookGrant is for the account itself"
		case seen[g]:
			return "a HookGrant is there twice"
		}
		seen[g] = true
	}
	return ""
}

func checkHookParameters(params xahau.Array) string {
	if len(params) > maxParameters {
		return "too many HookParameters"
	}
	seen := make(map[string]bool)
	for _, e := range params {
		name := string(e.Object.Blob(field.HookParameterName))
		switch {
		case e.Field != field.HookParameter:
			return "HookParameters contains something else"
		case !e.Object.Has(field.HookParameterName):
			return "a HookParameter has no name"
		case len(name) > maxParameterName || len(e.Object.Blob(field.HookParameterValue)) > maxParameterValue:
			return "a HookParameter is too long"
		case seen[name]:
			return "a HookParameter is there twice"
		}
		seen[name] = true
	}
	return ""
}

func (s setHook) fee(_ view.Reader, t *xahau.Object, general int64) int64 {
	for _, e := range t.Array(field.Hooks) {
		general += feeCodeByte * int64(len(e.Object.Blob(field.CreateCode)))
		for _, p := range e.Object.Array(field.HookParameters) {
			general += feeParameterByte * int64(len(p.Object.Blob(field.HookParameterName))+len(p.Object.Blob(field.HookParameterValue)))
		}
	}
	return general
}

func (s setHook) preclaim(c *Context) ter.Code {
	for _, e := range c.Tx.Array(field.Hooks) {
		if hash, ok := xahau.Lookup[xahau.Hash256](e.Object, field.HookHash); ok && !view.Exists(c.View, keylet.HookDefinition(hash)) {
			return ter.TerNO_HOOK
		}
	}
	return ter.TesSUCCESS
}

// hookChange is a SetHook in progress.
type hookChange struct {
	c *Context
	// definitions are those that were touched, by hash, with their new reference
	// counts; created are new.
	definitions map[xahau.Hash256]*xahau.Object
	created     map[xahau.Hash256]bool
	namespaces  map[xahau.Hash256]bool // to delete
	chain       xahau.Array
}

func (s setHook) apply(c *Context) ter.Code {
	k := keylet.Hook(c.Account)
	before := c.View.Read(k)
	var old xahau.Array
	if before != nil {
		old = before.Array(field.Hooks)
	}
	h := &hookChange{c: c, definitions: map[xahau.Hash256]*xahau.Object{}, created: map[xahau.Hash256]bool{}, namespaces: map[xahau.Hash256]bool{}}
	sets := c.Tx.Array(field.Hooks)
	for i := range max(len(old), len(sets)) {
		was, set := &xahau.Object{}, &xahau.Object{}
		if i < len(old) {
			was = old[i].Object
		}
		if i < len(sets) {
			set = sets[i].Object
		}
		now, code := h.change(was, set)
		if code != ter.TesSUCCESS {
			return code
		}
		h.chain = append(h.chain, xahau.Element{Field: field.Hook, Object: now})
	}

	delta := chainReserve(h.chain) - chainReserve(old)
	root := c.Root()
	owned := int64(root.Uint32(field.OwnerCount)) + int64(delta)
	if owned < 0 || owned > 1<<32-1 {
		return ter.TefINTERNAL
	}
	if root.Amount(field.Balance).Drops() < c.View.Ledger().Fees.AccountReserve(uint32(owned)) {
		return ter.TecINSUFFICIENT_RESERVE
	}
	h.writeDefinitions()
	result := h.deleteNamespaces()
	if !result.IsSuccess() && result != ter.TesPARTIAL {
		return result
	}
	if code := h.writeChain(k, before); code != ter.TesSUCCESS {
		return code
	}
	if delta != 0 {
		view.AdjustOwnerCount(c.View, c.Account, delta)
	}
	return result
}

// chainReserve is how many entries a chain of hooks counts for: one for each hook,
// parameter and grant.
func chainReserve(chain xahau.Array) int {
	n := 0
	for _, e := range chain {
		if e.Object.Has(field.HookHash) {
			n += 1 + len(e.Object.Array(field.HookParameters)) + len(e.Object.Array(field.HookGrants))
		}
	}
	return n
}

// definition gives a definition to change, nil if there is none.
func (h *hookChange) definition(hash xahau.Hash256) *xahau.Object {
	if d, ok := h.definitions[hash]; ok {
		return d
	}
	d := view.Edit(h.c.View, keylet.HookDefinition(hash))
	if d != nil {
		h.definitions[hash] = d
	}
	return d
}

func (h *hookChange) count(d *xahau.Object, delta int64) {
	if d == nil {
		return
	}
	n := int64(d.Uint64(field.ReferenceCount)) + delta
	d.Set(field.ReferenceCount, xahau.Uint64(max(n, 0)))
}

// change gives the hook that stands at a place afterwards, which is empty if there
// is none.
func (h *hookChange) change(was, set *xahau.Object) (*xahau.Object, ter.Code) {
	hash, installed := xahau.Lookup[xahau.Hash256](was, field.HookHash)
	var def *xahau.Object
	if installed {
		def = h.definition(hash)
	}
	op, flags := operationOf(set), set.Flags()
	if flags&xahau.HsfNSDelete != 0 && op != opNone {
		if op == opDeleteNamespace {
			h.namespaces[set.Hash(field.HookNamespace)] = true
		} else if installed {
			h.namespaces[hashOf(field.HookNamespace, was, def)] = true
		}
	}
	switch op {
	case opNone, opDeleteNamespace:
		return was, ter.TesSUCCESS
	case opDelete:
		if flags&xahau.HsfOverride == 0 {
			return nil, ter.TecREQUIRES_FLAG
		}
		h.count(def, -1)
		return &xahau.Object{}, ter.TesSUCCESS
	case opUpdate:
		if def == nil {
			return nil, ter.TecNO_ENTRY
		}
		return h.update(was, set, def)
	case opCreate, opInstall:
		if installed && flags&xahau.HsfOverride == 0 {
			return nil, ter.TecREQUIRES_FLAG
		}
		return h.install(set, def, op)
	}
	return nil, ter.TecCLAIM
}

// hashOf gives the first of the hashes that the hook or its definition has.
func hashOf(code field.Code, objects ...*xahau.Object) (h xahau.Hash256) {
	for _, o := range objects {
		if o == nil {
			continue
		}
		if h, ok := xahau.Lookup[xahau.Hash256](o, code); ok {
			return h
		}
	}
	return h
}

// override sets a hash of a hook if it differs from its definition's.
func override(now, set, def *xahau.Object, code field.Code) {
	h, ok := xahau.Lookup[xahau.Hash256](set, code)
	if !ok {
		return
	}
	if d, ok := xahau.Lookup[xahau.Hash256](def, code); ok && d == h {
		now.Delete(code)
		return
	}
	now.Set(code, h)
}

// overrideOn sets on which transactions a hook runs: one mask, or one for each
// direction.
func overrideOn(now, set, def *xahau.Object) {
	one := set.Has(field.HookOn)
	two := set.Has(field.HookOnOutgoing) && set.Has(field.HookOnIncoming)
	if one {
		now.Delete(field.HookOnOutgoing)
		now.Delete(field.HookOnIncoming)
		if def.Has(field.HookOnOutgoing) || def.Has(field.HookOnIncoming) {
			// The definition's masks must not shine through.
			now.Set(field.HookOn, set.Get(field.HookOn))
			return
		}
		override(now, set, def, field.HookOn)
	}
	if two {
		now.Delete(field.HookOn)
		override(now, set, def, field.HookOnOutgoing)
		override(now, set, def, field.HookOnIncoming)
	}
}

func (h *hookChange) update(was, set, def *xahau.Object) (*xahau.Object, ter.Code) {
	now := &xahau.Object{}
	for _, code := range []field.Code{field.HookHash, field.HookOn, field.HookOnOutgoing, field.HookOnIncoming, field.HookCanEmit, field.HookNamespace} {
		now.Set(code, was.Get(code))
	}
	override(now, set, def, field.HookNamespace)
	overrideOn(now, set, def)
	override(now, set, def, field.HookCanEmit)
	params, given := xahau.Lookup[xahau.Array](set, field.HookParameters)
	if !given || len(params) > 0 {
		if code := mergeParameters(now, params, def, was.Array(field.HookParameters)); code != ter.TesSUCCESS {
			return nil, code
		}
	}
	grants := was.Array(field.HookGrants)
	if set.Has(field.HookGrants) {
		grants = set.Array(field.HookGrants)
	}
	if len(grants) > 0 {
		now.Set(field.HookGrants, grants)
	}
	// Without Flags the hook gets back those of its definition.
	now.Set(field.Flags, set.Get(field.Flags))
	return now, ter.TesSUCCESS
}

// install puts new or known code at a place; def is the definition that was there.
func (h *hookChange) install(set, def *xahau.Object, op operation) (*xahau.Object, ter.Code) {
	hash := set.Hash(field.HookHash)
	if op == opCreate {
		code := set.Blob(field.CreateCode)
		hash = xahau.HookHash(code)
		if h.definition(hash) == nil {
			return h.create(hash, set, def)
		}
	}
	target := h.definition(hash)
	if target == nil {
		return nil, ter.TecNO_ENTRY
	}
	h.count(def, -1)
	h.count(target, 1)
	now := &xahau.Object{}
	now.Set(field.HookHash, hash)
	override(now, set, target, field.HookNamespace)
	overrideOn(now, set, target)
	override(now, set, target, field.HookCanEmit)
	if code := mergeParameters(now, set.Array(field.HookParameters), target, nil); code != ter.TesSUCCESS {
		return nil, code
	}
	setGrantsAndFlags(now, set)
	return now, ter.TesSUCCESS
}

func setGrantsAndFlags(now, set *xahau.Object) {
	if grants := set.Array(field.HookGrants); len(grants) > 0 {
		now.Set(field.HookGrants, grants)
	}
	if set.Has(field.Flags) {
		now.Set(field.Flags, xahau.Uint32(set.Flags()&^(xahau.HsfOverride|xahau.HsfNSDelete)))
	}
}

// create makes a new definition.
func (h *hookChange) create(hash xahau.Hash256, set, replaced *xahau.Object) (*xahau.Object, ter.Code) {
	verdict, err := hook.Check(set.Blob(field.CreateCode))
	if err != nil {
		return nil, ter.TecINTERNAL
	}
	h.count(replaced, -1)
	def := view.NewEntry(keylet.HookDefinition(hash))
	def.Set(field.HookHash, hash)
	for _, code := range []field.Code{field.HookOn, field.HookOnOutgoing, field.HookOnIncoming, field.HookCanEmit, field.HookNamespace, field.HookApiVersion, field.CreateCode} {
		def.Set(code, set.Get(code))
	}
	params := set.Array(field.HookParameters)
	if params == nil {
		params = xahau.Array{}
	}
	def.Set(field.HookParameters, params)
	def.Set(field.HookSetTxnID, h.c.ID)
	def.Set(field.ReferenceCount, xahau.Uint64(1))
	def.Set(field.Fee, xahau.Drops(int64(verdict.HookFee)))
	if verdict.CbakFee > 0 {
		def.Set(field.HookCallbackFee, xahau.Drops(int64(verdict.CbakFee)))
	}
	def.Set(field.Flags, xahau.Uint32(set.Flags()&^(xahau.HsfOverride|xahau.HsfNSDelete)))
	h.definitions[hash], h.created[hash] = def, true

	now := &xahau.Object{}
	now.Set(field.HookHash, hash)
	if grants := set.Array(field.HookGrants); len(grants) > 0 {
		now.Set(field.HookGrants, grants)
	}
	return now, ter.TesSUCCESS
}

// mergeParameters gives a hook its parameters: those it had and those of the
// transaction, without what is the same as in the definition. In a transaction, a
// name without value goes back to the definition's value, and an empty value hides
// it.
func mergeParameters(now *xahau.Object, params xahau.Array, def *xahau.Object, old xahau.Array) ter.Code {
	all := map[string]xahau.Blob{} // nil: absent value
	for _, list := range []xahau.Array{old, params} {
		for _, e := range list {
			name := string(e.Object.Blob(field.HookParameterName))
			if v, ok := xahau.Lookup[xahau.Blob](e.Object, field.HookParameterValue); ok {
				all[name] = append(xahau.Blob{}, v...)
			} else {
				all[name] = nil
			}
		}
	}
	hides := map[string]bool{}
	for _, e := range def.Array(field.HookParameters) {
		name := string(e.Object.Blob(field.HookParameterName))
		v, ok := all[name]
		switch {
		case !ok:
		case v == nil, string(v) == string(e.Object.Blob(field.HookParameterValue)):
			delete(all, name)
		case len(v) == 0:
			hides[name] = true
		}
	}
	names := make([]string, 0, len(all))
	for name, v := range all {
		if len(v) > 0 || hides[name] {
			names = append(names, name)
		}
	}
	if len(names) > maxParameters {
		return ter.TecINTERNAL
	}
	slices.Sort(names)
	list := make(xahau.Array, len(names))
	for i, name := range names {
		p := &xahau.Object{}
		p.Set(field.HookParameterName, xahau.Blob(name))
		p.Set(field.HookParameterValue, all[name])
		list[i] = xahau.Element{Field: field.HookParameter, Object: p}
	}
	if len(list) > 0 {
		now.Set(field.HookParameters, list)
	}
	return ter.TesSUCCESS
}

// writeDefinitions writes what was touched. Definitions that no account uses any
// more go.
func (h *hookChange) writeDefinitions() {
	hashes := make([]xahau.Hash256, 0, len(h.definitions))
	for hash := range h.definitions {
		hashes = append(hashes, hash)
	}
	slices.SortFunc(hashes, xahau.Hash256.Compare)
	for _, hash := range hashes {
		k, d := keylet.HookDefinition(hash), h.definitions[hash]
		switch {
		case h.created[hash]:
			h.c.View.Insert(k, d)
		case d.Uint64(field.ReferenceCount) == 0:
			h.c.View.Update(k, d)
			h.c.View.Erase(k)
		default:
			h.c.View.Update(k, d)
		}
	}
}

func (h *hookChange) deleteNamespaces() ter.Code {
	list := make([]xahau.Hash256, 0, len(h.namespaces))
	for ns := range h.namespaces {
		list = append(list, ns)
	}
	slices.SortFunc(list, xahau.Hash256.Compare)
	for _, ns := range list {
		if code := deleteNamespace(h.c.View, h.c.Account, ns); code != ter.TesSUCCESS {
			return code
		}
	}
	return ter.TesSUCCESS
}

// writeChain writes the account's hooks, or removes the entry when none is left.
func (h *hookChange) writeChain(k keylet.Keylet, before *xahau.Object) ter.Code {
	v, directory := h.c.View, keylet.OwnerDirectory(h.c.Account)
	empty := !slices.ContainsFunc(h.chain, func(e xahau.Element) bool { return e.Object.Has(field.HookHash) })
	switch {
	case before == nil && empty:
	case empty:
		if !view.DirRemove(v, directory, before.Uint64(field.OwnerNode), k.Index, false) {
			return ter.TefBAD_LEDGER
		}
		v.Erase(k)
	case before != nil:
		o := before.Clone()
		o.Set(field.Hooks, h.chain)
		v.Update(k, o)
	default:
		page, ok := view.DirInsert(v, directory, k.Index, view.OwnedBy(h.c.Account))
		if !ok {
			return ter.TecDIR_FULL
		}
		o := view.NewEntry(k)
		o.Set(field.Account, h.c.Account)
		o.Set(field.OwnerNode, xahau.Uint64(page))
		o.Set(field.Hooks, h.chain)
		v.Insert(k, o)
	}
	return ter.TesSUCCESS
}
