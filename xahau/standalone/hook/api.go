package hook

// A host function of the Hook API: its name, the types of its parameters ('i' for
// 32 bits, 'l' for 64), and what it does. All return 64 bits but _g, which returns
// 32. Parameters come as the hook pushed them; 32 bit ones fill the lower half.
type function struct {
	name   string
	params string
	call   func(r *run, p []uint64) Code
}

func (f *function) result() byte {
	if f.name == guardName {
		return valI32
	}
	return valI64
}

func (f *function) param(i int) byte {
	if f.params[i] == 'l' {
		return valI64
	}
	return valI32
}

const guardName = "_g"

// functions gives the 74 functions that a hook may import, in the order of
// spec/ledger.md section 3.
func functions() []function {
	return []function{
		{guardName, "ii", (*run).guard},
		{"accept", "iil", (*run).accept},
		{"rollback", "iil", (*run).rollback},

		{"util_raddr", "iiii", (*run).utilRaddr},
		{"util_accid", "iiii", (*run).utilAccid},
		{"util_verify", "iiiiii", (*run).utilVerify},
		{"util_sha512h", "iiii", (*run).utilSha512h},
		{"util_keylet", "iiiiiiiii", (*run).utilKeylet},

		{"sto_validate", "ii", (*run).stoValidate},
		{"sto_subfield", "iii", (*run).stoSubfield},
		{"sto_subarray", "iii", (*run).stoSubarray},
		{"sto_emplace", "iiiiiii", (*run).stoEmplace},
		{"sto_erase", "iiiii", (*run).stoErase},

		{"etxn_burden", "", (*run).etxnBurden},
		{"etxn_details", "ii", (*run).etxnDetails},
		{"etxn_fee_base", "ii", (*run).etxnFeeBase},
		{"etxn_reserve", "i", (*run).etxnReserve},
		{"etxn_generation", "", (*run).etxnGeneration},
		{"etxn_nonce", "ii", (*run).etxnNonce},
		{"emit", "iiii", (*run).emit},

		{"float_set", "il", floatSet},
		{"float_multiply", "ll", floatMultiply},
		{"float_mulratio", "liii", floatMulratio},
		{"float_negate", "l", floatNegate},
		{"float_compare", "lli", floatCompare},
		{"float_sum", "ll", floatSum},
		{"float_sto", "iiiiiili", (*run).floatSto},
		{"float_sto_set", "ii", (*run).floatStoSet},
		{"float_invert", "l", floatInvert},
		{"float_divide", "ll", floatDivide},
		{"float_one", "", floatOne},
		{"float_mantissa", "l", floatMantissa},
		{"float_sign", "l", floatSign},
		{"float_int", "lii", floatInt},
		{"float_log", "l", floatLog},
		{"float_root", "li", floatRoot},

		{"fee_base", "", (*run).feeBase},
		{"ledger_seq", "", (*run).ledgerSeq},
		{"ledger_last_time", "", (*run).ledgerLastTime},
		{"ledger_last_hash", "ii", (*run).ledgerLastHash},
		{"ledger_nonce", "ii", (*run).ledgerNonce},
		{"ledger_keylet", "iiiiii", (*run).ledgerKeylet},

		{"hook_account", "ii", (*run).hookAccount},
		{"hook_hash", "iii", (*run).hookHash},
		{"hook_param_set", "iiiiii", (*run).hookParamSet},
		{"hook_param", "iiii", (*run).hookParam},
		{"hook_again", "", (*run).hookAgain},
		{"hook_skip", "iii", (*run).hookSkip},
		{"hook_pos", "", (*run).hookPos},

		{"slot", "iii", (*run).slotRead},
		{"slot_clear", "i", (*run).slotClear},
		{"slot_count", "i", (*run).slotCount},
		{"slot_set", "iii", (*run).slotSet},
		{"slot_size", "i", (*run).slotSize},
		{"slot_subarray", "iii", (*run).slotSubarray},
		{"slot_subfield", "iii", (*run).slotSubfield},
		{"slot_type", "ii", (*run).slotType},
		{"slot_float", "i", (*run).slotFloat},

		{"state_set", "iiii", (*run).stateSet},
		{"state_foreign_set", "iiiiiiii", (*run).stateForeignSet},
		{"state", "iiii", (*run).state},
		{"state_foreign", "iiiiiiii", (*run).stateForeign},

		{"trace", "iiiii", (*run).trace},
		{"trace_num", "iil", (*run).traceNum},
		{"trace_float", "iil", (*run).traceFloat},

		{"otxn_burden", "", (*run).otxnBurden},
		{"otxn_field", "iii", (*run).otxnField},
		{"otxn_generation", "", (*run).otxnGeneration},
		{"otxn_id", "iii", (*run).otxnID},
		{"otxn_type", "", (*run).otxnType},
		{"otxn_slot", "i", (*run).otxnSlot},
		{"otxn_param", "iiii", (*run).otxnParam},

		{"meta_slot", "i", (*run).metaSlot},
		{"xpop_slot", "ii", (*run).xpopSlot},
	}
}
