package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"evernode/devkit"
)

// devFlags are the flags that all commands of the group share.
type devFlags struct {
	dir string
}

// work is the work folder of the cluster.
func (f *devFlags) work() (string, error) {
	if f.dir != "" {
		return f.dir, nil
	}
	return devkit.DefaultDir()
}

// env is how the cluster runs nodes: with this program itself.
func (f *devFlags) env(cmd *cobra.Command) (devkit.Env, error) {
	self, err := os.Executable()
	if err != nil {
		return devkit.Env{}, fmt.Errorf("find this program to run nodes with: %w", err)
	}
	return devkit.Env{
		Node:   []string{self, "node", "run"},
		Report: devkit.NewReporter(cmd.ErrOrStderr()),
	}, nil
}

// open opens the cluster.
func (f *devFlags) open(cmd *cobra.Command) (*devkit.Cluster, error) {
	work, err := f.work()
	if err != nil {
		return nil, err
	}
	env, err := f.env(cmd)
	if err != nil {
		return nil, err
	}
	return devkit.Open(work, env)
}

func devCommand() *cobra.Command {
	f := &devFlags{}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Write contracts and run them on a cluster on this machine",
		Long: `Write contracts and run them on a cluster on this machine. Every node is a
process of its own; the cluster goes on when the command ends and can be started
again after a restart of the machine.`,
	}
	cmd.PersistentFlags().StringVar(&f.dir, "dir", "", "work folder of the cluster (default: evernode/dev in $XDG_STATE_HOME or ~/.local/state)")
	cmd.AddCommand(
		devDeployCommand(f), devStatusCommand(f), devLogsCommand(f), devStartCommand(f), devStopCommand(f),
		devSpawnCommand(f), devCleanCommand(f), devListCommand(), devNewCommand(),
		devInputCommand(f), devReadCommand(f), devDemoCommand(f),
	)
	return cmd
}

func devDeployCommand(f *devFlags) *cobra.Command {
	var o devkit.DeployOptions
	var roundtime int
	var detach bool
	cmd := &cobra.Command{
		Use:   "deploy DIR",
		Short: "Run the contract in a folder on the cluster, from its first ledger",
		Long: `Run the contract in the folder DIR on the cluster, from its first ledger, and
follow the log of node 1 until Ctrl-C; the cluster goes on after that.

Everything in DIR becomes the contract's state, but for two things:
hp.cfg.override is laid over the nodes' configuration and says at least which
program to run ({"contract":{"bin_path":"…"}}), and disparate/<i>/ holds private
files of node i. A cluster that is there already keeps its keys and its contract
id; the state and the ledgers of the contract before are removed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			work, err := f.work()
			if err != nil {
				return err
			}
			env, err := f.env(cmd)
			if err != nil {
				return err
			}
			if err := givenPositive(cmd, "nodes", "roundtime", "threshold", "user-port", "peer-port"); err != nil {
				return err
			}
			o.Roundtime = time.Duration(roundtime) * time.Millisecond
			c, err := devkit.Deploy(cmd.Context(), work, args[0], o, env)
			if err != nil {
				return err
			}
			nodes, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := devkit.WriteTable(cmd.OutOrStdout(), nodes); err != nil || detach {
				return err
			}
			env.Report.Step("\nlog of node 1; Ctrl-C ends the log but not the cluster (evernode dev stop does):")
			return c.Logs(cmd.Context(), cmd.OutOrStdout(), 1, 10, true)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&o.Nodes, "nodes", 0, fmt.Sprintf("number of nodes of a new cluster, 1 to 128 (default %d)", devkit.DefaultNodes))
	flags.IntVar(&roundtime, "roundtime", 0, "longest time between ledgers in `MS` (default 1000, or what hp.cfg.override says)")
	flags.IntVar(&o.Threshold, "threshold", 0, "share of members that must agree in `PERCENT`, 50 to 100 (default 66, or what hp.cfg.override says)")
	flags.IntVar(&o.UserPort, "user-port", 0, fmt.Sprintf("user `PORT` of node 1; node i has the i-1st after it (default %d)", devkit.DefaultUserPort))
	flags.IntVar(&o.PeerPort, "peer-port", 0, fmt.Sprintf("peer `PORT` of node 1; node i has the i-1st after it (default %d)", devkit.DefaultPeerPort))
	flags.StringVar(&o.Backend, "state-backend", "", "how the nodes keep the state: `fuse|dir` (default fuse where this machine has it)")
	flags.BoolVar(&detach, "detach", false, "return when every node has closed its first ledger")
	return cmd
}

// givenPositive rejects 0 and less for flags whose 0 means that they were not
// given.
func givenPositive(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		flag := cmd.Flags().Lookup(name)
		if n, err := strconv.Atoi(flag.Value.String()); flag.Changed && (err != nil || n <= 0) {
			return usageError{fmt.Errorf("--%s is %s; it must be more than 0", name, flag.Value)}
		}
	}
	return nil
}

func devStatusCommand(f *devFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the nodes of the cluster",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.open(cmd)
			if err != nil {
				return err
			}
			nodes, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return devkit.WriteJSON(cmd.OutOrStdout(), nodes)
			}
			return devkit.WriteTable(cmd.OutOrStdout(), nodes)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an array with one object per node")
	return cmd
}

func devLogsCommand(f *devFlags) *cobra.Command {
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use:   "logs N",
		Short: "Show what node N and its contract printed",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := nodeNumber(args[0])
			if err != nil {
				return err
			}
			if err := givenPositive(cmd, "lines"); err != nil {
				return err
			}
			c, err := f.open(cmd)
			if err != nil {
				return err
			}
			return c.Logs(cmd.Context(), cmd.OutOrStdout(), n, lines, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until Ctrl-C")
	cmd.Flags().IntVarP(&lines, "lines", "n", 100, "how many lines to begin with")
	return cmd
}

func nodeNumber(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, usageError{fmt.Errorf("%q is not the number of a node; they are 1, 2, …", s)}
	}
	return n, nil
}

// devEach is a command that is about one node or all of them.
func devEach(f *devFlags, use, short string, do func(*devkit.Cluster, context.Context, int) error) *cobra.Command {
	return &cobra.Command{
		Use:   use + " [N]",
		Short: short,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n := 0
			if len(args) > 0 {
				var err error
				if n, err = nodeNumber(args[0]); err != nil {
					return err
				}
			}
			c, err := f.open(cmd)
			if err != nil {
				return err
			}
			return do(c, cmd.Context(), n)
		},
	}
}

func devStartCommand(f *devFlags) *cobra.Command {
	return devEach(f, "start", "Start node N or all nodes, with their state as it was", (*devkit.Cluster).Start)
}

func devStopCommand(f *devFlags) *cobra.Command {
	return devEach(f, "stop", "Stop node N or all nodes", (*devkit.Cluster).Stop)
}

func devSpawnCommand(f *devFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "spawn",
		Short: "Add a node that is no member and fetches everything from the others",
		Long: `Add a node that is no member and knows only the contract's id, the address of one
node and the public key of one member. It finds the others, verifies by that key
who they are, and fetches code, state and configuration. To make it a member, have
the contract add its public key to the UNL.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.open(cmd)
			if err != nil {
				return err
			}
			n, err := c.Spawn(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "node %d follows the cluster; see evernode dev logs %d\n", n, n)
			return nil
		},
	}
}

func devCleanCommand(f *devFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "clean",
		Short: "Stop all nodes and remove the cluster",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.open(cmd)
			if errors.Is(err, devkit.ErrNoCluster) {
				fmt.Fprintln(cmd.ErrOrStderr(), "there is no cluster, so nothing to clean")
				return nil
			}
			if err != nil {
				return err
			}
			if err := c.Clean(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "the cluster is removed")
			return nil
		},
	}
}
