// Command evernode is the whole of Evernode in one program; each of its command
// groups is a file here. The commands only read their arguments, call the
// package that does the work, and print what comes back.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"evernode/hotpocket/config"
)

// Exit codes: 1 when a command fails, 2 when it was called wrongly.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError is a mistake in how a command was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(errOut, "evernode: stopped")
		return exitFailure
	case errors.As(err, &usage):
		fmt.Fprintf(errOut, "evernode: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(errOut, "evernode: %v\n", err)
	return exitFailure
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "evernode",
		Short: "Turn a program into a small blockchain of its own",
		Long: `Turn a program into a small blockchain of its own.

Start with a cluster on this machine:

    evernode dev new go-starter hello    make a contract project
    evernode dev deploy DIR              run a contract on four nodes`,
		Args:          cobra.NoArgs,
		Version:       versionLine(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	root.AddCommand(versionCommand("version"), nodeCommand(), devCommand(), ledgerCommand())
	strictArgs(root)
	return root
}

// strictArgs makes wrong arguments of every command usage errors that say how
// the command is used, and a group without a command show its help.
func strictArgs(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		strictArgs(sub)
	}
	if cmd.HasSubCommands() && cmd.Run == nil && cmd.RunE == nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error { return cmd.Help() }
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return usageError{fmt.Errorf("there is no command %q; see %s --help", cmd.CommandPath()+" "+args[0], cmd.CommandPath())}
		}
		return
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{fmt.Errorf("%w; usage: %s", err, cmd.UseLine())}
			}
			return nil
		}
	}
}

func versionCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use:   name,
		Short: "Print the version of this program and of what it is compatible with",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.OutOrStdout(), versionLine())
			return nil
		},
	}
}

func versionLine() string {
	return fmt.Sprintf("evernode %s (compatible with HotPocket %s), %s %s/%s",
		version(), config.HPVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// version is what the Go tool noted of the source at the build: a git tag, or
// the time and commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "of unknown source"
	}
	return info.Main.Version
}
