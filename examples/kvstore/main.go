// Command kvstore is an example contract: a store of keys and values, the same
// on every node. It understands lines of text and JSON, see README.md.
package main

import (
	"fmt"

	"evernode/sdk/contract"
)

func main() { contract.Run(serve) }

// serve answers the inputs of all users in the given order and writes what they
// changed once, at the end.
func serve(ctx *contract.Context) error {
	s := newStore("data", ctx.ReadOnly)
	for _, user := range ctx.Users {
		for _, input := range user.Inputs {
			if err := user.Send(handle(s, input)); err != nil {
				return err
			}
		}
	}
	if err := s.flush(); err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	return nil
}
