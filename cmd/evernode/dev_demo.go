package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"evernode/devkit/demo"
)

func devDemoCommand(f *devFlags) *cobra.Command {
	return &cobra.Command{
		Use:    "demo DIR",
		Short:  "Show and check replication with the key-value contract in a folder",
		Hidden: true, // `make demo` builds the contract and calls it
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			env, err := f.env(cmd)
			if err != nil {
				return err
			}
			err = demo.Run(cmd.Context(), demo.Options{Bundle: args[0], Node: env.Node, Out: cmd.OutOrStdout()})
			if err != nil {
				return fmt.Errorf("the demonstration failed: %w", err)
			}
			return nil
		},
	}
}
