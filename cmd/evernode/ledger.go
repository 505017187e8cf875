package main

import (
	"github.com/spf13/cobra"
)

func ledgerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ledger",
		Short: "Run a Xahau-compatible ledger of your own, and look at ledgers",
		Long: `Run a Xahau-compatible ledger of your own, and look at ledgers.

    evernode ledger run                     a ledger in memory, on port 6006
    evernode ledger fund --new              an account with 1000 XAH on it
    evernode ledger account ADDRESS         what a ledger knows of an account

All commands but run ask a server, by default the one that run starts; --server
names another.`,
	}
	cmd.AddCommand(ledgerRunCommand(), ledgerAcceptCommand(), ledgerFundCommand(), ledgerAccountCommand(), ledgerTxCommand(), ledgerHookCommand())
	return cmd
}
