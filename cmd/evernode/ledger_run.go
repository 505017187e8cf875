package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"evernode/xahau/standalone"
	"evernode/xahau/standalone/api"
)

// ledgerListen is where a ledger is found unless something else is said.
const ledgerListen = "127.0.0.1:6006"

// Bounds of --close-interval.
const (
	minCloseInterval = 100 * time.Millisecond
	maxCloseInterval = time.Hour
)

func ledgerRunCommand() *cobra.Command {
	var dir, listen, interval string
	var network uint32
	var verbose bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a ledger until it is told to stop",
		Long: `Run a ledger in the foreground: a whole Xahau-compatible network of one server,
with WebSocket and JSON-RPC on one port. Without --dir it is kept in memory only.
Ctrl-C and SIGTERM stop it cleanly, with exit code 0.

The account of the seed ` + standalone.MasterSeed + ` has all the money of a
new network; evernode ledger fund pays from it. With --close-interval manual a
ledger closes only by evernode ledger accept or the request ledger_accept.

Whoever reaches the port can use the ledger. It listens on this machine only
unless --listen says otherwise.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			every, err := parseInterval(interval)
			if err != nil {
				return err
			}
			if network == 0 {
				if cmd.Flags().Changed("network-id") {
					return usageError{errors.New("--network-id must be above 0")}
				}
				if dir == "" {
					network = standalone.DefaultNetworkID
				}
			}
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return runLedger(cmd, standalone.Config{Dir: dir, NetworkID: network, Log: log}, listen, every)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "dir", "", "keep the ledger in this `FOLDER` (default: in memory only)")
	flags.StringVar(&listen, "listen", ledgerListen, "`ADDRESS` for WebSocket and HTTP")
	flags.StringVar(&interval, "close-interval", "3s", "`TIME` from one ledger to the next, or manual")
	flags.Uint32Var(&network, "network-id", 0, "`NUMBER` of the network (default: that of the folder, else 21338)")
	flags.BoolVar(&verbose, "verbose", false, "log every ledger and what hooks trace")
	return cmd
}

// parseInterval reads --close-interval; 0 is manual.
func parseInterval(s string) (time.Duration, error) {
	if s == "manual" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < minCloseInterval || d > maxCloseInterval {
		return 0, usageError{fmt.Errorf("--close-interval is %q; allowed: manual, or %s to %s", s, minCloseInterval, maxCloseInterval)}
	}
	return d, nil
}

func runLedger(cmd *cobra.Command, cfg standalone.Config, listen string, every time.Duration) (err error) {
	ctx := cmd.Context()
	port, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("the ledger's port: %w", err)
	}
	defer port.Close()
	node, err := standalone.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close(context.WithoutCancel(ctx))) }()
	server, err := api.New(node, api.Config{Manual: every == 0, Version: ledgerVersion, Log: cfg.Log})
	if err != nil {
		return err
	}
	defer server.Close()
	web := &http.Server{Handler: server, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug)}
	served := make(chan error, 1)
	go func() { served <- web.Serve(port) }()
	defer web.Close()

	var ticks <-chan time.Time
	if every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		ticks = ticker.C
	}
	address := port.Addr().String()
	fmt.Fprintf(cmd.OutOrStdout(), "ledger %d of network %d, ws://%s and http://%s\n", node.Validated().Header.Seq, node.NetworkID(), address, address)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	closed := make(chan error, 1)
	go func() { closed <- node.Run(ctx, ticks) }()
	select {
	case err = <-served:
		stop()
		return errors.Join(fmt.Errorf("the ledger's port: %w", err), <-closed)
	case err = <-closed:
		return err
	}
}

// ledgerVersion is that of the network's servers whose rules the ledger has; tools
// find out by it what a server can do.
const ledgerVersion = "2025.7.9"
