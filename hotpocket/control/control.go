// Package control is the local control socket of a running node: a Unix socket
// in the node's folder over which the command line asks how the node is doing.
//
// The node serves it, the command line and the developer's cluster ask it. It
// speaks HTTP and JSON so that a person can use it with curl as well. Whoever
// may open the socket is trusted: its mode is 0600. It knows nothing of
// consensus, users or peers; it only carries what the node reports.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"evernode/hotpocket/config"
)

const (
	// maxReply bounds what the client reads of an answer, in bytes.
	maxReply = 1 << 20
	// replyTimeout bounds how long the node may take to answer.
	replyTimeout = 5 * time.Second
)

// Status is what a node reports about itself. Hashes and keys are lower-case
// hex.
type Status struct {
	PublicKey       string `json:"public_key"`
	ContractID      string `json:"contract_id"`
	ContractVersion string `json:"contract_version"`
	Version         string `json:"version"`    // of our program
	HPVersion       string `json:"hp_version"` // that it is compatible with
	PID             int    `json:"pid"`
	StartedAt       int64  `json:"started_at"` // Unix time in ms
	Role            string `json:"role"`       // "validator" or "observer"
	UserPort        int    `json:"user_port"`  // 0: not listening
	PeerPort        int    `json:"peer_port"`  // 0: not listening

	LedgerSeqNo uint64 `json:"ledger_seq_no"` // last closed ledger; 0: none yet
	LedgerHash  string `json:"ledger_hash"`
	LedgerTime  int64  `json:"ledger_time"` // Unix time in ms
	StateHash   string `json:"state_hash"`  // last agreed state
	PatchHash   string `json:"patch_hash"`  // last agreed patch.cfg
	VoteStatus  string `json:"vote_status"` // "unknown", "unreliable", "desync" or "synced"

	UNL             []string `json:"unl"`
	Peers           int      `json:"peers"`         // connected peers
	PeersInUNL      int      `json:"peers_in_unl"`  // how many of them are members
	Users           int      `json:"users"`         // users connected to this node
	ClusterUsers    int      `json:"cluster_users"` // users connected anywhere
	WeaklyConnected bool     `json:"weakly_connected"`
	PendingInputs   int      `json:"pending_inputs"`
	ContractRunning bool     `json:"contract_running"`
	Diverged        uint64   `json:"diverged"`    // runs since the start whose result was not the agreed one
	FailedRuns      uint64   `json:"failed_runs"` // runs since the start without an agreed result

	// Trouble says what keeps the node from executing or keeping the contract's
	// state (its process is gone, its disk is full); "" while nothing does.
	Trouble       string `json:"trouble,omitempty"`
	StateRestarts uint64 `json:"state_restarts"` // how often the state's process had to be started again

	// Sync is nil while the node has all it needs.
	Sync *Sync `json:"sync,omitempty"`
}

// Sync is how far a node is that fetches what it lacks.
type Sync struct {
	What  string `json:"what"`  // "state", "ledgers", …
	Done  uint64 `json:"done"`  // bytes fetched
	Total uint64 `json:"total"` // bytes in all as far as known; 0: unknown

	Here    uint64 `json:"here"`         // bytes of the total that are here, fetched or there before
	Entries uint64 `json:"entries"`      // files, folders and links in all; 0: unknown
	Rate    uint64 `json:"rate"`         // bytes fetched in a second, of late
	Left    int64  `json:"seconds_left"` // about; 0: unknown
	Peers   int    `json:"peers"`        // from which something has come of late
	// Finishing: everything is here and being put into place.
	Finishing bool `json:"finishing"`
}

// Progress says for a person how far it is, as "312 MB of 1.0 GB (30 %), 95 MB/s,
// 8 s left, from 3 peers".
func (s *Sync) Progress() string {
	var b strings.Builder
	if s.Total > 0 {
		fmt.Fprintf(&b, "%s of %s (%d %%)", amount(s.Here), amount(s.Total), percent(s.Here, s.Total))
	} else {
		b.WriteString(amount(s.Done) + " fetched")
	}
	if s.Finishing {
		b.WriteString(", putting it into place")
		return b.String()
	}
	if s.Rate > 0 {
		b.WriteString(", " + amount(s.Rate) + "/s")
	}
	if s.Left > 0 {
		fmt.Fprintf(&b, ", %s left", time.Duration(s.Left)*time.Second)
	}
	if s.Peers > 0 {
		fmt.Fprintf(&b, ", from %d peer", s.Peers)
		if s.Peers > 1 {
			b.WriteByte('s')
		}
	}
	return b.String()
}

func percent(n, of uint64) uint64 {
	if n >= of {
		return 100
	}
	return uint64(float64(n) / float64(of) * 100)
}

// amount writes a number of bytes with three digits or so.
func amount(n uint64) string {
	v, unit := float64(n), ""
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if v < 1000 {
			break
		}
		v, unit = v/1000, u
	}
	switch {
	case unit == "":
		return fmt.Sprintf("%d B", n)
	case v < 10:
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}

// Node is what answers. It must be safe for concurrent use.
type Node interface {
	Status(ctx context.Context) (Status, error)
}

// ErrNotRunning says that no node answers in a folder.
var ErrNotRunning = errors.New("the node is not running")

// Serve answers requests on the control socket of the node's folder dir until
// ctx ends, and removes the socket. The caller must hold the folder's lock: a
// socket that a killed process left behind is replaced.
func Serve(ctx context.Context, dir string, node Node, log *slog.Logger) error {
	l, err := Listen(ctx, dir)
	if err != nil {
		return err
	}
	return l.Serve(ctx, node, log)
}

// Listener is a control socket that accepts connections but does not answer
// yet.
type Listener struct {
	dir string
	l   net.Listener
}

// Listen opens the control socket of the node's folder dir. Use it in place of
// Serve where a failure must be known before the node goes on.
func Listen(ctx context.Context, dir string) (*Listener, error) {
	path := config.Layout(dir).ControlSocket()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the control socket of an earlier run: %w", err)
	}
	// The socket gets its mode before it has a name, so that there is no
	// moment in which others could open it.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmodErr error
		err := c.Control(func(fd uintptr) { chmodErr = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, chmodErr)
	}}
	var l net.Listener
	err := withShortPath(path, func(short string) (err error) {
		l, err = lc.Listen(ctx, "unix", short)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the control socket %s: %w", path, err)
	}
	// The listener knows the short name only, which will not be valid then.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return &Listener{dir, l}, nil
}

// Close closes a listener that was not served and removes its socket.
func (l *Listener) Close() error {
	return errors.Join(l.l.Close(), os.Remove(config.Layout(l.dir).ControlSocket()))
}

// Serve answers requests until ctx ends.
func (l *Listener) Serve(ctx context.Context, node Node, log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		status, err := node.Status(r.Context())
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			_ = json.NewEncoder(w).Encode(failure{err.Error()})
			return
		}
		if err := json.NewEncoder(w).Encode(status); err != nil {
			log.Debug("control: status not delivered", "err", err)
		}
	})
	server := &http.Server{
		Handler:           http.TimeoutHandler(mux, replyTimeout, `{"error":"the node does not answer"}`),
		ReadHeaderTimeout: replyTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l.l) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		err = server.Close()
		<-served
	}
	if removeErr := os.Remove(config.Layout(l.dir).ControlSocket()); !errors.Is(removeErr, os.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	return err
}

// failure is the body of an answer that is not OK.
type failure struct {
	Error string `json:"error"`
}

// Fetch asks the node that runs in dir for its status. It returns ErrNotRunning
// when nobody answers there.
func Fetch(ctx context.Context, dir string) (Status, error) {
	path := config.Layout(dir).ControlSocket()
	client := http.Client{
		Timeout: replyTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
				err = withShortPath(path, func(short string) (err error) {
					conn, err = new(net.Dialer).DialContext(ctx, "unix", short)
					return err
				})
				return conn, err
			},
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/status", nil)
	if err != nil {
		return Status{}, err
	}
	resp, err := client.Do(req)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return Status{}, fmt.Errorf("%w in %s", ErrNotRunning, dir)
	}
	if err != nil {
		return Status{}, fmt.Errorf("ask the node in %s: %w", dir, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return Status{}, fmt.Errorf("ask the node in %s: %w", dir, err)
	}
	if resp.StatusCode != http.StatusOK {
		var f failure
		if json.Unmarshal(body, &f) != nil || f.Error == "" {
			f.Error = resp.Status
		}
		return Status{}, fmt.Errorf("the node in %s cannot say its status: %s", dir, f.Error)
	}
	var s Status
	if err := json.Unmarshal(body, &s); err != nil {
		return Status{}, fmt.Errorf("the answer of the node in %s: %w", dir, err)
	}
	return s, nil
}

// withShortPath calls f with a name for path that fits into a socket address,
// which holds 108 bytes: the folder is opened and named by its descriptor.
func withShortPath(path string, f func(short string) error) error {
	if len(path) < 100 {
		return f(path)
	}
	d, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(filepath.Join("/proc/self/fd", strconv.Itoa(int(d.Fd())), filepath.Base(path)))
}
