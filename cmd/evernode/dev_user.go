package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"evernode/devkit"
	"evernode/hotpocket/key"
	"evernode/sdk/client"
)

// maxStdin bounds an input from standard input; nodes take less.
const maxStdin = 64 << 20

// userFlags say who talks to which node.
type userFlags struct {
	node    int
	user    string
	seconds int
}

func (u *userFlags) register(cmd *cobra.Command) {
	cmd.Flags().IntVar(&u.node, "node", 1, "number of the node to talk to")
	cmd.Flags().StringVar(&u.user, "user", "default", "`NAME` of the user; each has a key of its own")
	cmd.Flags().IntVar(&u.seconds, "timeout", 30, "`SECONDS` to wait")
}

// talk calls f with the cluster, the user's key and the text of the command.
func (u *userFlags) talk(f *devFlags, cmd *cobra.Command, text string, do func(context.Context, *devkit.Cluster, key.Private, []byte) error) error {
	if err := givenPositive(cmd, "node", "timeout"); err != nil {
		return err
	}
	c, err := f.open(cmd)
	if err != nil {
		return err
	}
	user, err := c.UserKey(u.user)
	if err != nil {
		return err
	}
	content := []byte(text)
	if text == "-" {
		if content, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxStdin)); err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Duration(u.seconds)*time.Second)
	defer cancel()
	return do(ctx, c, user, content)
}

func devInputCommand(f *devFlags) *cobra.Command {
	u := &userFlags{}
	cmd := &cobra.Command{
		Use:   "input TEXT",
		Short: "Submit an input, which every node executes, and print what the contract says",
		Long: `Submit an input, which every node executes. Its status goes to standard error,
what the contract says to it, to standard output. TEXT - stands for standard
input.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return u.talk(f, cmd, args[0], func(ctx context.Context, c *devkit.Cluster, user key.Private, text []byte) error {
				reply, err := c.Input(ctx, u.node, user, text, func(at client.LedgerRef) {
					fmt.Fprintf(cmd.ErrOrStderr(), "accepted in ledger %d (%s)\n", at.SeqNo, at.Hash)
				})
				if err != nil {
					return err
				}
				if len(reply.Outputs) == 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "no output: the contract said nothing, or its run failed; see evernode dev logs %d\n", u.node)
					return nil
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "output with ledger %d:\n", reply.Output.SeqNo)
				for _, o := range reply.Outputs {
					fmt.Fprintf(cmd.OutOrStdout(), "%s\n", o)
				}
				return nil
			})
		},
	}
	u.register(cmd)
	return cmd
}

func devReadCommand(f *devFlags) *cobra.Command {
	u := &userFlags{}
	cmd := &cobra.Command{
		Use:   "read TEXT",
		Short: "Send a read request, which one node answers from its state, and print the answer",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return u.talk(f, cmd, args[0], func(ctx context.Context, c *devkit.Cluster, user key.Private, text []byte) error {
				answer, err := c.Read(ctx, u.node, user, text)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n", answer)
				return nil
			})
		},
	}
	u.register(cmd)
	return cmd
}
