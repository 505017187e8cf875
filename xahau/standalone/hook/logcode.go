package hook

import (
	"fmt"
	"strconv"
)

// LogCode is the network's number for what is wrong with the code of a hook. The
// numbers appear in servers' logs as HookSet(n).
type LogCode int

// The log codes that concern code. Those of SetHook's other fields belong to its
// transactor.
const (
	LogBlockIllegal          LogCode = 5
	LogCallIllegal           LogCode = 6
	LogCallIndirect          LogCode = 7
	LogExportsMissing        LogCode = 12
	LogExportCbakFunc        LogCode = 13
	LogExportHookFunc        LogCode = 14
	LogExportMissing         LogCode = 15
	LogFuncsMissing          LogCode = 17
	LogFuncParamInvalid      LogCode = 18
	LogFuncReturnCount       LogCode = 19
	LogFuncReturnInvalid     LogCode = 20
	LogFuncTypeless          LogCode = 21
	LogFuncTypeInvalid       LogCode = 22
	LogGuardImport           LogCode = 27
	LogGuardMissing          LogCode = 28
	LogGuardParameters       LogCode = 29
	LogImportsMissing        LogCode = 43
	LogImportIllegal         LogCode = 44
	LogImportModuleBad       LogCode = 45
	LogImportModuleEnv       LogCode = 46
	LogImportNameBad         LogCode = 47
	LogInstructionExcess     LogCode = 51
	LogMemoryGrow            LogCode = 52
	LogParamHookCbak         LogCode = 70
	LogReturnHookCbak        LogCode = 71
	LogShortHook             LogCode = 72
	LogTypeInvalid           LogCode = 73
	LogWasmBadMagic          LogCode = 74
	LogWasmTestFailure       LogCode = 78
	LogWasmTooBig            LogCode = 79
	LogWasmTooSmall          LogCode = 80
	LogWasmValidation        LogCode = 81
	LogHookCbakDiffTypes     LogCode = 82
	LogNestingLimit          LogCode = 84
	LogSectionsOutOfSequence LogCode = 85
	LogCustomSection         LogCode = 86
)

var logNames = map[LogCode]string{
	LogBlockIllegal:          "BLOCK_ILLEGAL",
	LogCallIllegal:           "CALL_ILLEGAL",
	LogCallIndirect:          "CALL_INDIRECT",
	LogExportsMissing:        "EXPORTS_MISSING",
	LogExportCbakFunc:        "EXPORT_CBAK_FUNC",
	LogExportHookFunc:        "EXPORT_HOOK_FUNC",
	LogExportMissing:         "EXPORT_MISSING",
	LogFuncsMissing:          "FUNCS_MISSING",
	LogFuncParamInvalid:      "FUNC_PARAM_INVALID",
	LogFuncReturnCount:       "FUNC_RETURN_COUNT",
	LogFuncReturnInvalid:     "FUNC_RETURN_INVALID",
	LogFuncTypeless:          "FUNC_TYPELESS",
	LogFuncTypeInvalid:       "FUNC_TYPE_INVALID",
	LogGuardImport:           "GUARD_IMPORT",
	LogGuardMissing:          "GUARD_MISSING",
	LogGuardParameters:       "GUARD_PARAMETERS",
	LogImportsMissing:        "IMPORTS_MISSING",
	LogImportIllegal:         "IMPORT_ILLEGAL",
	LogImportModuleBad:       "IMPORT_MODULE_BAD",
	LogImportModuleEnv:       "IMPORT_MODULE_ENV",
	LogImportNameBad:         "IMPORT_NAME_BAD",
	LogInstructionExcess:     "INSTRUCTION_EXCESS",
	LogMemoryGrow:            "MEMORY_GROW",
	LogParamHookCbak:         "PARAM_HOOK_CBAK",
	LogReturnHookCbak:        "RETURN_HOOK_CBAK",
	LogShortHook:             "SHORT_HOOK",
	LogTypeInvalid:           "TYPE_INVALID",
	LogWasmBadMagic:          "WASM_BAD_MAGIC",
	LogWasmTestFailure:       "WASM_TEST_FAILURE",
	LogWasmTooBig:            "WASM_TOO_BIG",
	LogWasmTooSmall:          "WASM_TOO_SMALL",
	LogWasmValidation:        "WASM_VALIDATION",
	LogHookCbakDiffTypes:     "HOOK_CBAK_DIFF_TYPES",
	LogNestingLimit:          "NESTING_LIMIT",
	LogSectionsOutOfSequence: "SECTIONS_OUT_OF_SEQUENCE",
	LogCustomSection:         "CUSTOM_SECTION_DISALLOWED",
}

// String is the network's name of the code.
func (c LogCode) String() string {
	if s, ok := logNames[c]; ok {
		return s
	}
	return "HookSet(" + strconv.Itoa(int(c)) + ")"
}

// CodeError says why a module is refused.
type CodeError struct {
	Log LogCode
	// Offset is the position in the module, in bytes.
	Offset int
	Reason string
}

func (e *CodeError) Error() string {
	return fmt.Sprintf("hook refused: %s (%d) at byte %d: %s", e.Log, int(e.Log), e.Offset, e.Reason)
}

func refuse(log LogCode, offset int, format string, args ...any) error {
	return &CodeError{Log: log, Offset: offset, Reason: fmt.Sprintf(format, args...)}
}
