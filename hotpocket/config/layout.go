package config

import "path/filepath"

// Layout names the files of a node's folder (section 3.2). Its value is the
// folder's path.
type Layout string

func (l Layout) join(parts ...string) string {
	return filepath.Join(append([]string{string(l)}, parts...)...)
}

// ConfigFile is hp.cfg.
func (l Layout) ConfigFile() string { return l.join("cfg", "hp.cfg") }

// TLSKey is the private key of the user port's certificate, in PEM.
func (l Layout) TLSKey() string { return l.join("cfg", "tlskey.pem") }

// TLSCert is the certificate of the user port, or a chain of them, in PEM.
func (l Layout) TLSCert() string { return l.join("cfg", "tlscert.pem") }

// ContractFS holds the contract's files.
func (l Layout) ContractFS() string { return l.join("contract_fs") }

// Seed is where patch.cfg and the node's private files are put before the
// first run.
func (l Layout) Seed() string { return l.join("contract_fs", "seed") }

// SeedState is where a contract's files are put before its first run.
func (l Layout) SeedState() string { return l.join("contract_fs", "seed", "state") }

// Mount is where the contract sees its files while it runs.
func (l Layout) Mount() string { return l.join("contract_fs", "mnt") }

// LedgerFS holds closed ledgers.
func (l Layout) LedgerFS() string { return l.join("ledger_fs") }

// LogFile is the node's log.
func (l Layout) LogFile() string { return l.join("log", "hp.log") }

// ContractLog is the folder of the contract's own logs.
func (l Layout) ContractLog() string { return l.join("log", "contract") }

// ControlSocket is the socket over which a running node answers the command
// line.
func (l Layout) ControlSocket() string { return l.join("control.sock") }
