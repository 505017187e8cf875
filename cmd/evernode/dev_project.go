package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"evernode/devkit"
)

func devListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the templates for contract projects",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, tmpl := range devkit.Templates() {
				fmt.Fprintf(t, "%s\t%s\tneeds %s\n", tmpl.Name, tmpl.About, tmpl.Needs)
			}
			return t.Flush()
		},
	}
}

func devNewCommand() *cobra.Command {
	var source string
	cmd := &cobra.Command{
		Use:   "new TEMPLATE NAME",
		Short: "Make a contract project in the folder NAME",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, dir, err := devkit.NewProject(args[0], args[1], ".", source)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "made %s: %s\ngo on with (needs %s):\n\n    cd %s\n    %s\n", dir, t.About, t.Needs, dir, t.Next)
			return nil
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "checkout of evernode's source, for projects in Go (default: around this program or the current folder)")
	return cmd
}
