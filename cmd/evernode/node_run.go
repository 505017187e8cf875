package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"evernode/hotpocket"
	"evernode/hotpocket/config"
	"evernode/hotpocket/contract"
	"evernode/hotpocket/nodelog"
)

const (
	// openFiles is how many descriptors a node asks for: two for each user of the
	// cluster while a run of the contract is set up, and one for each connection.
	openFiles = 1 << 17
	// collectAt is by how many percent the heap may grow between two garbage
	// collections. Most of a node's memory under load is garbage: half of Go's
	// default costs 3 % of a processor and saves a third of the memory.
	collectAt = 50
	// fewFiles are so few that the operator should know.
	fewFiles = 8192
)

func nodeRunCommand() *cobra.Command {
	var state hotpocket.StateOptions
	var metrics string
	cmd := &cobra.Command{
		Use:   "run DIR",
		Short: "Run the node in a folder until it is told to stop",
		Long: `Run the node in the folder DIR in the foreground. Ctrl-C and SIGTERM stop it
cleanly, with exit code 0.

The contract's state is kept by a process of its own, which the node starts and
supervises, or by one that evernode node state has started and --state-socket
names. --state-backend chooses how: fuse is a file system of ours, dir a plain
folder for machines without FUSE. Both lead to the same results.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if err := checkBackend(state.Backend); err != nil {
				return err
			}
			c, err := config.Load(dir)
			if err != nil {
				return err
			}
			if err := contract.CloseOnExecAll(); err != nil {
				return err
			}
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(collectAt)
			}
			layout := config.Layout(dir)
			if c.Log.File() {
				if err := os.MkdirAll(filepath.Dir(layout.LogFile()), 0o755); err != nil {
					return err
				}
			}
			log, closer, err := nodelog.Open(c.Log, layout.LogFile(), cmd.OutOrStdout())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, closer.Close()) }()
			if got, err := contract.RaiseFileLimit(openFiles); err != nil && got < fewFiles {
				log.Warn("this limits how many users can be connected to the cluster", "err", err)
			}
			state.Command = stateCommand()
			return hotpocket.Run(cmd.Context(), dir, hotpocket.Options{Version: version(), Log: log, Metrics: metrics, State: state})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&state.Backend, "state-backend", "", "how the state is kept: `fuse|dir` (default: hpfs.backend in hp.cfg)")
	flags.StringVar(&state.Socket, "state-socket", "", "`PATH` of the socket of a state process that runs already (default: hpfs.socket in hp.cfg)")
	flags.StringVar(&metrics, "metrics", "", "serve counters for Prometheus at this `ADDRESS` of this machine, as 127.0.0.1:9090")
	return cmd
}
