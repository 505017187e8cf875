package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"evernode/hotpocket/config"
	"evernode/hotpocket/statefs"
	"evernode/hotpocket/statefs/backend"
	"evernode/hotpocket/statefs/remote"
)

// stateCommand starts a state's process as this very program, also after the
// file that it was started from has been replaced or removed.
func stateCommand() []string {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err == nil {
		return []string{self, "node", "state"}
	}
	return []string{os.Args[0], "node", "state"}
}

func checkBackend(kind string) error {
	switch kind {
	case "", backend.FUSE, backend.Dir:
		return nil
	}
	return usageError{fmt.Errorf("there is no state backend %q; choose %s or %s", kind, backend.FUSE, backend.Dir)}
}

func nodeStateCommand() *cobra.Command {
	var dir, socket, kind, owner string
	var users []uint
	var group int
	cmd := &cobra.Command{
		Use:   "state --dir CONTRACT_FS",
		Short: "Keep a contract's state for a node, as a process of its own",
		Long: `Keep the state of the contract in the folder CONTRACT_FS for a node. A node starts
this by itself; start it by hand, with --socket, to have the state outside the
node's container or under another user, and name that socket to the node with
--state-socket or hpfs.socket. It serves one node at a time and goes on when the
node ends; SIGTERM stops it.

Its own user, root, and the users named by --peer may connect.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usageError{fmt.Errorf("--dir is missing")}
			}
			if err := checkBackend(kind); err != nil {
				return err
			}
			p := remote.Process{Dir: dir, Open: func(ctx context.Context, c statefs.Config) (statefs.State, error) {
				return backend.Open(ctx, kind, c)
			}}
			if owner != "" {
				uid, gid, ok := parseOwner(owner)
				if !ok {
					return usageError{fmt.Errorf(`--owner is %q; allowed: UID:GID in numbers`, owner)}
				}
				p.Owner = &statefs.Owner{UID: uid, GID: gid}
			}
			if socket == "" {
				// The node decides when this ends; what is sent to all processes of
				// a service must not take the state away from under it.
				signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
				p.Log = remote.ChildLog(cmd.ErrOrStderr())
				return p.RunChild(context.WithoutCancel(cmd.Context()))
			}
			p.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			access := remote.Access{Group: group}
			for _, u := range users {
				access.Users = append(access.Users, uint32(u))
			}
			return p.RunService(cmd.Context(), socket, access)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "dir", "", "the node's contract_fs")
	flags.StringVar(&socket, "socket", "", "`PATH` of the socket to wait for a node on; without it, the node that started this is at descriptor 3")
	flags.StringVar(&kind, "backend", config.DefaultBackend, "how the state is kept: `fuse|dir`")
	flags.StringVar(&owner, "owner", "", "`UID:GID` that the contract's files belong to, in place of what the node says")
	flags.UintSliceVar(&users, "peer", nil, "`UID` of a node that may connect, besides this process's own user and root")
	flags.IntVar(&group, "group", -1, "`GID` of the group that may open the socket")
	return cmd
}

func parseOwner(s string) (uid, gid int, ok bool) {
	u, g, ok := strings.Cut(s, ":")
	uid, errU := strconv.Atoi(u)
	gid, errG := strconv.Atoi(g)
	return uid, gid, ok && errU == nil && errG == nil && uid >= 0 && gid >= 0
}
