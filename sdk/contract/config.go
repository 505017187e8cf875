package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// configPath is where a contract finds its configuration
// (spec/hotpocket.md section 2.11).
const configPath = "../patch.cfg"

// Config is the part of the configuration that the cluster agrees on. A contract
// changes it like its state: every node must write the same. The change takes
// effect when the nodes have agreed on it, with the next ledger.
type Config struct {
	// Version of the contract, shown to users.
	Version string `json:"version"`
	// UNL are the public keys of the nodes that decide. A wrong key in a small UNL
	// halts the cluster for good.
	UNL []string `json:"unl"`
	// BinPath is the program, relative to the state folder or absolute. BinArgs are
	// split on spaces, without quoting. Environment is all that it gets.
	BinPath     string            `json:"bin_path"`
	BinArgs     string            `json:"bin_args"`
	Environment map[string]string `json:"environment"`
	// MaxInputLedgerOffset is how many ledgers ahead an input may name its last; 0
	// is unlimited.
	MaxInputLedgerOffset uint16      `json:"max_input_ledger_offset"`
	Consensus            Agreement   `json:"consensus"`
	NPL                  NPLSettings `json:"npl"`
	RoundLimits          RoundLimits `json:"round_limits"`

	// text is the file as it was read, whose unknown fields and order are kept.
	text json.RawMessage
}

// Agreement are the settings of the consensus.
type Agreement struct {
	Mode       string `json:"mode"`        // "public" or "private"
	RoundTime  uint32 `json:"roundtime"`   // milliseconds, 1 to 3600000
	StageSlice uint32 `json:"stage_slice"` // percent, 1 to 33
	Threshold  uint16 `json:"threshold"`   // percent, 1 to 100
}

// NPLSettings are the settings of the node party line.
type NPLSettings struct {
	Mode string `json:"mode"` // "public" or "private"
}

// RoundLimits bound one run; 0 is unlimited.
type RoundLimits struct {
	UserInputBytes  uint64 `json:"user_input_bytes"`
	UserOutputBytes uint64 `json:"user_output_bytes"`
	NPLOutputBytes  uint64 `json:"npl_output_bytes"`
	ProcCPUSeconds  uint64 `json:"proc_cpu_seconds"`
	ProcMemBytes    uint64 `json:"proc_mem_bytes"`
	ProcOFDCount    uint64 `json:"proc_ofd_count"`
	ExecTimeout     uint64 `json:"exec_timeout"` // milliseconds
}

// Config reads the configuration in force.
func (c *Context) Config() (*Config, error) { return readConfig(configPath) }

// UpdateConfig checks and writes the configuration, one that Config returned as
// a rule: fields that this package does not know are kept.
func (c *Context) UpdateConfig(cfg *Config) error { return writeConfig(configPath, cfg) }

func readConfig(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	cfg := new(Config)
	if err := json.Unmarshal(text, cfg); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	cfg.text = text
	return cfg, nil
}

func writeConfig(path string, cfg *Config) error {
	text, err := cfg.encode()
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	// A process that is killed half-way must not leave half a file.
	fresh := path + ".new"
	if err := os.WriteFile(fresh, text, 0o644); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if info, err := os.Stat(path); err == nil {
		if err := os.Chmod(fresh, info.Mode().Perm()); err != nil { // its mode is hashed
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("write configuration to %s: %w", filepath.Base(path), err)
	}
	return nil
}

// Validate tells what a node would refuse.
func (cfg *Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	mode := func(s string) bool { return s == "public" || s == "private" }
	check(cfg.Version != "", "version is empty")
	check(len(cfg.UNL) > 0, "unl is empty")
	for _, k := range cfg.UNL {
		check(isKey(k), "unl: %q is not a public key (ed and 64 hex digits)", k)
	}
	check(cfg.BinPath != "", "bin_path is empty")
	check(mode(cfg.Consensus.Mode), "consensus.mode is %q, it must be public or private", cfg.Consensus.Mode)
	check(cfg.Consensus.RoundTime >= 1 && cfg.Consensus.RoundTime <= 3600000, "consensus.roundtime is %d, it must be 1 to 3600000 ms", cfg.Consensus.RoundTime)
	check(cfg.Consensus.StageSlice >= 1 && cfg.Consensus.StageSlice <= 33, "consensus.stage_slice is %d, it must be 1 to 33 percent", cfg.Consensus.StageSlice)
	check(cfg.Consensus.Threshold >= 1 && cfg.Consensus.Threshold <= 100, "consensus.threshold is %d, it must be 1 to 100 percent", cfg.Consensus.Threshold)
	check(mode(cfg.NPL.Mode), "npl.mode is %q, it must be public or private", cfg.NPL.Mode)
	return errors.Join(errs...)
}

func isKey(s string) bool {
	if len(s) != 66 || (s[0] != 'e' && s[0] != 'E') || (s[1] != 'd' && s[1] != 'D') {
		return false
	}
	for i := 2; i < len(s); i++ {
		switch c := s[i] | 0x20; {
		case s[i] >= '0' && s[i] <= '9', c >= 'a' && c <= 'f':
		default:
			return false
		}
	}
	return true
}

// encode gives the text that every implementation gives, byte for byte: the
// layout of JavaScript's JSON.stringify(config, null, 4), no newline at the end.
func (cfg *Config) encode() ([]byte, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	known := *cfg
	if known.Environment == nil {
		known.Environment = map[string]string{}
	}
	text, err := marshal(known)
	if err != nil {
		return nil, err
	}
	if len(cfg.text) > 0 {
		if text, err = merge(cfg.text, text, ""); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "    "); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// marshal is json.Marshal without the escaping meant for web pages.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

type field struct {
	name  string
	value json.RawMessage
}

func fields(object json.RawMessage) (list []field, err error) {
	err = members(object, func(key string, d *json.Decoder) error {
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return err
		}
		list = append(list, field{key, v})
		return nil
	})
	return list, err
}

// merge puts the members of the object fresh into the object old: those that are
// there keep their place, new ones follow, and what only old has stays. The
// environment is a map whose members are all known: there, what fresh does not
// have goes.
func merge(old, fresh json.RawMessage, name string) (json.RawMessage, error) {
	was, err := fields(old)
	if err != nil {
		return nil, fmt.Errorf("configuration as it was: %w", err)
	}
	now, err := fields(fresh)
	if err != nil {
		return nil, err
	}
	values := make(map[string]json.RawMessage, len(now))
	for _, f := range now {
		values[f.name] = f.value
	}
	var list []field
	for _, f := range was {
		v, known := values[f.name]
		switch {
		case known && isObject(v) && isObject(f.value):
			if v, err = merge(f.value, v, f.name); err != nil {
				return nil, err
			}
			fallthrough
		case known:
			list = append(list, field{f.name, v})
			delete(values, f.name)
		case name != "environment":
			list = append(list, f)
		}
	}
	for _, f := range now {
		if _, left := values[f.name]; left {
			list = append(list, f)
		}
	}
	out := []byte{'{'}
	for i, f := range list {
		if i > 0 {
			out = append(out, ',')
		}
		key, err := marshal(f.name)
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, key...), ':'), f.value...)
	}
	return append(out, '}'), nil
}

func isObject(v json.RawMessage) bool { return len(v) > 0 && v[0] == '{' }
