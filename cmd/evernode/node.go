package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"evernode/hotpocket/config"
)

func nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Make and run a single node",
	}
	cmd.AddCommand(nodeNewCommand(), nodeJoinCommand(), nodeRekeyCommand(), nodeRunCommand(), nodeStateCommand(), versionCommand("version"))
	return cmd
}

func nodeNewCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "new DIR",
		Short: "Make the folder of a new node with fresh keys",
		Long: `Make the folder of a new node with fresh keys, a contract id of its own and
itself as the only member. DIR must not exist or be empty. The configuration is
DIR/cfg/hp.cfg; put the contract's files into DIR/contract_fs/seed/state and its
program into contract.bin_path.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := config.Create(args[0], time.Now())
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "node        %s\npublic key  %s\ncontract    %s\n", args[0], c.Node.PublicKey, c.Contract.ID)
			if w := config.Warning(len(c.Contract.UNL), c.Contract.Consensus.Threshold); w != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), "note:", w)
			}
			return nil
		},
	}
}

func nodeRekeyCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rekey DIR",
		Short: "Give a node new keys",
		Long: `Give the node in DIR, which must not be running, a new key pair, and put the new
public key in the place of the old one in its own UNL. Other members must put it
into theirs. The hp.cfg with the old keys stays in DIR/cfg as hp.cfg.before-rekey.

Once there are ledgers they say who is a member, so a member that has some gets no
new keys, unless --force says that you have seen to that. A node that only follows
gets new ones at any time.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := config.Rekey(args[0], time.Now(), force)
			if errors.Is(err, config.ErrLedgers) {
				return fmt.Errorf("%w; --force is for when the contract puts the new key into the UNL by itself, or the node is to start anew", err)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "public key  %s\n", c.Node.PublicKey)
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false,
		"change the keys of a node with ledgers too: the contract has put the new key into the UNL by itself, or the node is to start anew")
	return cmd
}
