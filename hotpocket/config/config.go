// Package config is a node's folder and configuration: hp.cfg, which belongs
// to the operator, and patch.cfg, the part of it that the contract's members
// agree on (spec/hotpocket.md sections 2.11, 3.2 and 3.3).
//
// It reads any file that HotPocket 0.6.3 or later wrote, fills missing fields
// with their defaults, says for every field that cannot be used what would be
// allowed there, keeps fields it does not know through every rewrite, and
// writes files so that a crash leaves the old or the new one. It also makes new
// node folders, changes a node's keys, and keeps two processes from running in
// one folder.
//
// The node, the command line and the developer's cluster call it. It starts
// nothing, opens no connection and holds no state of its own.
package config

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"evernode/hotpocket/key"
)

const (
	// HPVersion is the version of HotPocket that this node is compatible with.
	// It is what new hp.cfg files, users and contracts are told.
	HPVersion = "0.6.4"
	// MinHPVersion is the oldest version whose hp.cfg can be read.
	MinHPVersion = "0.6.3"
	// MaxUNL is the largest number of members.
	MaxUNL = 128
	// DefaultThreshold is the share of members, in percent, that a new contract
	// needs to close a ledger. The original's 80 makes four nodes need all four.
	DefaultThreshold = 66
	// DefaultLedgersPerRoundtime is how many ledgers may close in one roundtime.
	DefaultLedgersPerRoundtime = 10
	// DefaultMaxMessage is what a message size limit of 0 stands for, in bytes.
	DefaultMaxMessage = 5 << 20
	// DefaultBackend is how the state is kept when nothing is said. A node that
	// cannot have it does not take the other by itself: to change over costs a
	// copy of the state, and the speed that the operator counts on.
	DefaultBackend = "fuse"
	// MaxFileSize bounds hp.cfg, patch.cfg and hp.cfg.override, in bytes.
	MaxFileSize = 4 << 20
	// BinPathPlaceholder is what a new hp.cfg has in place of a contract.
	BinPathPlaceholder = "<your contract binary here>"
)

// Config is hp.cfg. Sizes are in bytes; a limit of 0 means none unless said
// otherwise. The zero value is not usable: use Parse, Load or New.
type Config struct {
	HPVersion string // version that wrote the file, at least MinHPVersion
	Node      Node
	Contract  Contract
	Mesh      Mesh
	User      User
	HPFS      HPFS
	Log       Log

	extra *value // the file as it was read, for the fields we do not know
}

// Node is who this node is and what it remembers.
type Node struct {
	PublicKey  key.Public
	PrivateKey key.Private
	Role       string // "validator" or "observer"
	History    string // "custom": keep what HistoryConfig says; "full": keep all
	// HistoryConfig counts shards: 262144 ledgers in a primary shard, 4096
	// ledgers with their inputs and outputs in a raw one (section 4.8).
	HistoryConfig HistoryConfig
}

// Observer reports whether the node only follows.
func (n Node) Observer() bool { return n.Role == "observer" }

// FullHistory reports whether the node keeps everything.
func (n Node) FullHistory() bool { return n.History == "full" }

// HistoryConfig is how many shards a node with custom history keeps.
type HistoryConfig struct {
	MaxPrimaryShards uint64 // at least 1
	MaxRawShards     uint64 // 0 keeps no inputs and outputs
}

// Contract is the contract and how this node runs it.
type Contract struct {
	ID      string // the same in the whole cluster
	Execute bool   // false: follow the ledger but never run the contract
	RunAs   string // "uid:gid", or "" for the node's own user
	Log     ContractLog
	Patch   // what the members agree on
}

// User returns the user and group under which the contract runs; ok is false
// when it runs under the node's own.
func (c Contract) User() (uid, gid uint32, ok bool) { return parseRunAs(c.RunAs) }

// ContractLog says whether and how the contract's output is kept in files.
type ContractLog struct {
	Enable           bool
	MaxMBytesPerFile int // MiB
	MaxFileCount     int
}

// Mesh is the connection to other nodes.
type Mesh struct {
	Port                    int
	Listen                  bool
	IdleTimeout             time.Duration // 0: never
	KnownPeers              []string      // "host:port"
	MsgForwarding           bool
	MaxConnections          int
	MaxKnownConnections     int
	MaxInConnectionsPerHost int
	MaxBytesPerMsg          uint64 // 0: DefaultMaxMessage
	MaxBytesPerMin          uint64
	MaxBadMsgsPerMin        uint64
	MaxBadMsgSigsPerMin     uint64
	MaxDupMsgsPerMin        uint64
	PeerDiscovery           PeerDiscovery
}

// PeerDiscovery is whether peers are asked for more peers, and how often.
type PeerDiscovery struct {
	Enabled  bool
	Interval time.Duration
}

// User is the connection to users.
type User struct {
	Port                    int
	Listen                  bool
	IdleTimeout             time.Duration // 0: never
	MaxBytesPerMsg          uint64        // 0: DefaultMaxMessage
	MaxBytesPerMin          uint64
	MaxBadMsgsPerMin        uint64
	MaxConnections          int
	MaxInConnectionsPerHost int
	ConcurrentReadRequests  int // 0 to 32; 0: no read requests
}

// HPFS is how the contract's state is kept. External and LogLevel are kept for
// files of the original, where External says that somebody else mounts the state
// file system.
type HPFS struct {
	Backend string // "fuse" or "dir"
	Socket  string // of a state process that somebody else starts; "": the node's own
	RunAs   string // "uid:gid" of the node's own state process, or ""
	// MaxUpload bounds what peers are sent of the state, to all of them
	// together, in bytes a second; 0: no bound.
	MaxUpload uint64
	External  bool
	LogLevel  string // "dbg", "inf", "wrn" or "err"
}

// User returns the user and group under which the state's process runs; ok is
// false when it runs under the node's own.
func (h HPFS) User() (uid, gid uint32, ok bool) { return parseRunAs(h.RunAs) }

// Log is the node's own log.
type Log struct {
	Level            string // "dbg", "inf", "wrn" or "err"
	MaxMBytesPerFile int    // MiB
	MaxFileCount     int
	Loggers          []string // "console", "file"
}

// SlogLevel returns the level in the standard library's terms.
func (l Log) SlogLevel() slog.Level {
	switch l.Level {
	case "dbg":
		return slog.LevelDebug
	case "wrn":
		return slog.LevelWarn
	case "err":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// Console and File report where the log goes.
func (l Log) Console() bool { return slices.Contains(l.Loggers, "console") }

// File reports whether the log goes to log/hp.log.
func (l Log) File() bool { return slices.Contains(l.Loggers, "file") }

// New returns the configuration of a new node that is the only member of its
// own contract: the defaults of section 3.3, except that the threshold is
// DefaultThreshold.
func New(private key.Private, contractID string) *Config {
	c := defaults()
	c.Node.PrivateKey = private
	c.Node.PublicKey = private.Public()
	c.Contract.ID = contractID
	c.Contract.UNL = []key.Public{private.Public()}
	return c
}

// defaults is what a missing field stands for.
func defaults() *Config {
	return &Config{
		HPVersion: HPVersion,
		Node: Node{
			Role:          "validator",
			History:       "custom",
			HistoryConfig: HistoryConfig{MaxPrimaryShards: 1},
		},
		Contract: Contract{
			Execute: true,
			Log:     ContractLog{MaxMBytesPerFile: 5, MaxFileCount: 10},
			Patch:   defaultPatch(),
		},
		Mesh: Mesh{
			Port:          22860,
			Listen:        true,
			IdleTimeout:   2 * time.Minute,
			MsgForwarding: true,
			PeerDiscovery: PeerDiscovery{Enabled: true, Interval: 30 * time.Second},
		},
		User: User{Port: 8080, Listen: true, ConcurrentReadRequests: 4},
		HPFS: HPFS{Backend: DefaultBackend, LogLevel: "wrn"},
		Log: Log{
			Level:            "inf",
			MaxMBytesPerFile: 5,
			MaxFileCount:     10,
			Loggers:          []string{"console", "file"},
		},
	}
}

// bind visits every field in the order of section 3.3.
func (c *Config) bind(b binder) {
	b.field("hp_version", text(&c.HPVersion, "a version from "+MinHPVersion, supportedVersion))
	b.section("node", c.Node.bind)
	b.section("contract", c.Contract.bind)
	b.section("mesh", c.Mesh.bind)
	b.section("user", c.User.bind)
	b.section("hpfs", func(b binder) {
		b.field("external", flag(&c.HPFS.External))
		b.section("log", func(b binder) { b.field("log_level", oneOf(&c.HPFS.LogLevel, logLevels...)) })
		b.field("backend", ours(oneOf(&c.HPFS.Backend, "fuse", "dir")))
		b.field("socket", ours(text(&c.HPFS.Socket, `a path from / on, or ""`, func(s string) bool { return s == "" || filepath.IsAbs(s) })))
		b.field("run_as", ours(text(&c.HPFS.RunAs, `"uid:gid" in numbers, or ""`, isRunAs)))
		b.field("max_upload_bytes_per_sec", ours(whole(&c.HPFS.MaxUpload, 0, 1<<40)))
	})
	b.section("log", func(b binder) {
		b.field("log_level", oneOf(&c.Log.Level, logLevels...))
		b.field("max_mbytes_per_file", whole(&c.Log.MaxMBytesPerFile, 1, 1<<20))
		b.field("max_file_count", whole(&c.Log.MaxFileCount, 1, 1<<20))
		b.field("loggers", list(&c.Log.Loggers, 1, "a list of console and file, at least one",
			func(s string) bool { return s == "console" || s == "file" }))
	})
}

var logLevels = []string{"dbg", "inf", "wrn", "err"}

func (n *Node) bind(b binder) {
	b.field("public_key", publicKey(&n.PublicKey))
	b.field("private_key", privateKey(&n.PrivateKey))
	b.field("role", oneOf(&n.Role, "validator", "observer"))
	b.field("history", oneOf(&n.History, "custom", "full"))
	b.section("history_config", func(b binder) {
		b.field("max_primary_shards", count(&n.HistoryConfig.MaxPrimaryShards))
		b.field("max_raw_shards", count(&n.HistoryConfig.MaxRawShards))
	})
}

func (c *Contract) bind(b binder) {
	b.field("id", required(nonEmpty(&c.ID)))
	b.field("execute", flag(&c.Execute))
	b.field("run_as", text(&c.RunAs, `"uid:gid" in numbers, or ""`, isRunAs))
	b.section("log", func(b binder) {
		b.field("enable", flag(&c.Log.Enable))
		b.field("max_mbytes_per_file", whole(&c.Log.MaxMBytesPerFile, 0, 1<<20))
		b.field("max_file_count", whole(&c.Log.MaxFileCount, 0, 1<<20))
	})
	c.Patch.bind(b)
}

func (m *Mesh) bind(b binder) {
	b.field("port", whole(&m.Port, 1, math.MaxUint16))
	b.field("listen", flag(&m.Listen))
	b.field("idle_timeout", millis(&m.IdleTimeout, 0, math.MaxUint32))
	b.field("known_peers", list(&m.KnownPeers, 0, `a list of "host:port"`, func(s string) bool {
		_, _, err := ParsePeer(s)
		return err == nil
	}))
	b.field("msg_forwarding", flag(&m.MsgForwarding))
	b.field("max_connections", whole(&m.MaxConnections, 0, math.MaxUint16))
	b.field("max_known_connections", whole(&m.MaxKnownConnections, 0, math.MaxUint16))
	b.field("max_in_connections_per_host", whole(&m.MaxInConnectionsPerHost, 0, math.MaxUint16))
	b.field("max_bytes_per_msg", count(&m.MaxBytesPerMsg))
	b.field("max_bytes_per_min", count(&m.MaxBytesPerMin))
	b.field("max_bad_msgs_per_min", count(&m.MaxBadMsgsPerMin))
	b.field("max_bad_msgsigs_per_min", count(&m.MaxBadMsgSigsPerMin))
	b.field("max_dup_msgs_per_min", count(&m.MaxDupMsgsPerMin))
	b.section("peer_discovery", func(b binder) {
		b.field("enabled", flag(&m.PeerDiscovery.Enabled))
		b.field("interval", millis(&m.PeerDiscovery.Interval, 1, math.MaxUint16))
	})
}

func (u *User) bind(b binder) {
	b.field("port", whole(&u.Port, 1, math.MaxUint16))
	b.field("listen", flag(&u.Listen))
	b.field("idle_timeout", millis(&u.IdleTimeout, 0, math.MaxUint32))
	b.field("max_bytes_per_msg", count(&u.MaxBytesPerMsg))
	b.field("max_bytes_per_min", count(&u.MaxBytesPerMin))
	b.field("max_bad_msgs_per_min", count(&u.MaxBadMsgsPerMin))
	b.field("max_connections", whole(&u.MaxConnections, 0, math.MaxUint16))
	b.field("max_in_connections_per_host", whole(&u.MaxInConnectionsPerHost, 0, math.MaxUint16))
	b.field("concurrent_read_requests", whole(&u.ConcurrentReadRequests, 0, 32))
}

// Parse reads and checks the text of an hp.cfg. Fields that are missing get
// their defaults, except the keys, the contract's id and its UNL, which have
// none. The error is a *SyntaxError or joins one *FieldError per bad field.
func Parse(text []byte) (*Config, error) {
	v, err := parseObject(text)
	if err != nil {
		return nil, err
	}
	return decodeConfig(v, text)
}

func decodeConfig(v value, text []byte) (*Config, error) {
	c := defaults()
	var errs []error
	c.bind(&decoder{object: &v, text: text, errs: &errs})
	if len(errs) == 0 {
		errs = c.conflicts()
	}
	if len(errs) > 0 {
		return nil, join(errs)
	}
	c.extra = &v
	c.Contract.Patch.extra = v.get("contract")
	return c, nil
}

// parseObject parses a file whose outermost value must be an object.
func parseObject(text []byte) (value, error) {
	if len(text) > MaxFileSize {
		return value{}, fmt.Errorf("the file has %d bytes, more than the allowed %d", len(text), MaxFileSize)
	}
	v, err := parse(text)
	if err != nil {
		return value{}, err
	}
	if v.kind != kindObject {
		line, column := position(text, v.offset)
		return value{}, &SyntaxError{line, column, "expected an object in braces"}
	}
	return v, nil
}

// conflicts finds fields that are well formed but do not fit each other.
func (c *Config) conflicts() []error {
	var errs []error
	fail := func(field string, shown any, allowed string) {
		errs = append(errs, &FieldError{Field: field, Value: fmt.Sprint(shown), Allowed: allowed})
	}
	if c.Node.PrivateKey.Public() != c.Node.PublicKey {
		fail("node.public_key", c.Node.PublicKey, "the public key that belongs to node.private_key, "+
			c.Node.PrivateKey.Public().String())
	}
	if n := c.Node.HistoryConfig.MaxPrimaryShards; n < 1 && !c.Node.FullHistory() {
		fail("node.history_config.max_primary_shards", n, "at least 1 while node.history is custom")
	}
	if l := c.Contract.Log; l.Enable {
		if l.MaxMBytesPerFile < 1 {
			fail("contract.log.max_mbytes_per_file", l.MaxMBytesPerFile, "at least 1 while contract.log.enable is true")
		}
		if l.MaxFileCount < 1 {
			fail("contract.log.max_file_count", l.MaxFileCount, "at least 1 while contract.log.enable is true")
		}
	}
	if m := c.Mesh; m.MaxConnections > 0 && (m.MaxKnownConnections < 1 || m.MaxKnownConnections > m.MaxConnections) {
		fail("mesh.max_known_connections", m.MaxKnownConnections,
			fmt.Sprintf("1 to mesh.max_connections, which is %d", m.MaxConnections))
	}
	return errs
}

// Validate checks a configuration that was changed in memory by the rules of
// Parse.
func (c *Config) Validate() error {
	_, err := decodeConfig(c.tree(), nil)
	return err
}

// tree is the JSON form, unknown fields included.
func (c *Config) tree() value {
	e := encoder{value{kind: kindObject}, c.extra.withSection("contract", c.Contract.Patch.extra)}
	c.bind(&e)
	return e.finish()
}

// withSection returns a copy of v whose member of that name has also the
// members of section. v may be nil.
func (v *value) withSection(name string, section *value) *value {
	if section == nil {
		return v
	}
	over := value{kind: kindObject, members: []member{{name, *section}}}
	if v == nil {
		return &over
	}
	merged := merge(*v, over)
	return &merged
}

// Text returns hp.cfg as it is written: the known fields in the order of
// section 3.3, after them the fields we do not know, laid out as
// JSON.stringify(…, null, 4) does. It holds the private key.
func (c *Config) Text() []byte { return format(c.tree()) }

// Override lays a partial hp.cfg, the hp.cfg.override of a contract bundle,
// over c: objects are merged, everything else is replaced. It returns the
// result and leaves c as it was.
func (c *Config) Override(text []byte) (*Config, error) {
	over, err := parseObject(text)
	if err != nil {
		return nil, err
	}
	// Line numbers would be those of a text that exists nowhere.
	return decodeConfig(merge(c.tree(), over), nil)
}

// supportedVersion reports whether an hp.cfg of that version can be read.
func supportedVersion(s string) bool {
	version, ok := parseVersion(s)
	least, _ := parseVersion(MinHPVersion)
	return ok && slices.Compare(version[:], least[:]) >= 0
}

// parseVersion reads "major.minor.patch".
func parseVersion(s string) (version [3]uint64, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) != len(version) {
		return version, false
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return version, false
		}
		version[i] = n
	}
	return version, true
}

func isRunAs(s string) bool {
	_, _, ok := parseRunAs(s)
	return s == "" || ok
}

func parseRunAs(s string) (uid, gid uint32, ok bool) {
	u, g, found := strings.Cut(s, ":")
	a, errA := strconv.ParseUint(u, 10, 32)
	b, errB := strconv.ParseUint(g, 10, 32)
	if !found || errA != nil || errB != nil {
		return 0, 0, false
	}
	return uint32(a), uint32(b), true
}

// ParsePeer splits the address of a peer, "host:port", where an IPv6 address
// stands in brackets, and checks both parts.
func ParsePeer(s string) (host string, port int, err error) {
	host, digits, err := net.SplitHostPort(s)
	if err != nil || host == "" || strings.ContainsAny(host, " \t\r\n/\x00") {
		return "", 0, fmt.Errorf("peer address %q is not host:port", s)
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("peer address %q has no port from 1 to 65535", s)
	}
	return host, int(n), nil
}
