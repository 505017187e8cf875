// Package contract is what a smart contract in Go needs to talk to the HotPocket
// node that runs it. A contract is an ordinary program: the node starts it once
// for every ledger, and once for every read request, in the folder that holds the
// replicated state.
//
//	func main() {
//		contract.Run(func(ctx *contract.Context) error {
//			for _, user := range ctx.Users {
//				for _, input := range user.Inputs {
//					if err := user.Send(input); err != nil {
//						return err
//					}
//				}
//			}
//			return nil
//		})
//	}
//
// Files below the working directory are the state: every node must write the
// same bytes into them, so nothing that differs between nodes (the clock, random
// numbers, the order of map iteration, PrivateKey, Member.ActiveOn, what arrives
// over NPL) may find its way there unless the nodes have agreed on it. Files in
// "..", which stay on this node, are free of that rule. In a read request
// (Context.ReadOnly) the state cannot be written.
//
// Contracts import this package and nothing else of this module. It never writes
// to standard output and imports little, because a contract's start is paid for
// with every ledger.
package contract
