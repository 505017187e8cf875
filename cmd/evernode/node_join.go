package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"evernode/hotpocket"
	"evernode/hotpocket/config"
	"evernode/hotpocket/key"
)

func nodeJoinCommand() *cobra.Command {
	var contract string
	var peers, members []string
	var userPort, peerPort int
	var observer, unchecked bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "join DIR --contract ID --peer HOST:PORT --member KEY",
		Short: "Make the folder of a node that joins a contract's cluster",
		Long: `Make the folder of a node, with fresh keys, that joins the cluster of a contract of
which you know the id, the address of one node and the public key of one member.
The member need not be the node at the address. DIR must not exist or be empty.

Before it makes anything the command connects to the cluster and verifies what it
is told by the member's key; a key, an address or an id that is wrong is found
now. Then start the node with evernode node run DIR: it fetches configuration and
state and follows the cluster. It becomes a member when the contract puts its
public key, which the command prints, into the UNL.

You trust the owner of the key you give to name the chain. With several --member
more than half of them have to name the same one.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := args[0]
			var trusted []key.Public
			for _, text := range members {
				k, err := key.ParsePublic(text)
				if err != nil {
					return usageError{fmt.Errorf("--member %s: %w", text, err)}
				}
				trusted = append(trusted, k)
			}
			c, err := config.Newcomer(contract, peers, trusted)
			if err != nil {
				return usageError{err}
			}
			if cmd.Flags().Changed("user-port") {
				c.User.Port = userPort
			}
			if cmd.Flags().Changed("peer-port") {
				c.Mesh.Port = peerPort
			}
			if observer {
				c.Node.Role = "observer"
			}
			if err := c.Validate(); err != nil {
				return usageError{err}
			}
			if err := config.Vacant(dir); err != nil {
				return err
			}
			out, note := cmd.OutOrStdout(), ""
			if !unchecked {
				ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
				defer cancel()
				f, err := hotpocket.Seek(ctx, c, slog.New(slog.DiscardHandler))
				switch {
				case err == nil:
					fmt.Fprintf(out, "found       ledger %d, %d members of whom %d must agree\n", f.Ledger, len(f.Members), f.Quorum)
				case errors.Is(err, hotpocket.ErrPrivate):
					note = "note: only members may follow this contract (its consensus.mode is private); have it put the public key into the UNL before you start the node"
				case cmd.Context().Err() == nil && errors.Is(err, context.DeadlineExceeded):
					return fmt.Errorf("the cluster was not found within %v: %w", timeout, err)
				default:
					return err
				}
			}
			if err := c.CreateIn(dir, time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(out, "node        %s\npublic key  %s\ncontract    %s\n", dir, c.Node.PublicKey, c.Contract.ID)
			if note != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), note)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&contract, "contract", "", "the contract's `ID`")
	flags.StringArrayVar(&peers, "peer", nil, "`HOST:PORT` of a node of the cluster for nodes; may be given several times")
	flags.StringArrayVar(&members, "member", nil, "public `KEY` of a member that you trust; may be given several times")
	flags.IntVar(&userPort, "user-port", 8080, "the node's `PORT` for users")
	flags.IntVar(&peerPort, "peer-port", 22860, "the node's `PORT` for other nodes")
	flags.BoolVar(&observer, "observer", false, "never take part, even as a member")
	flags.DurationVar(&timeout, "timeout", 30*time.Second, "how long to look for the cluster")
	flags.BoolVar(&unchecked, "no-check", false, "do not connect to the cluster now")
	return cmd
}
