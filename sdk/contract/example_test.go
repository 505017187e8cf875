package contract_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"evernode/sdk/contract"
)

// A counter in the state, raised by every input.
func Example() {
	contract.Run(func(ctx *contract.Context) error {
		var count int
		if text, err := os.ReadFile("count"); err == nil {
			fmt.Sscan(string(text), &count)
		}
		for _, user := range ctx.Users {
			for range user.Inputs {
				if !ctx.ReadOnly {
					count++
				}
				if err := user.Send(fmt.Appendf(nil, "count is %d", count)); err != nil {
					return err
				}
			}
		}
		if ctx.ReadOnly {
			return nil
		}
		return os.WriteFile("count", fmt.Appendf(nil, "%d", count), 0o644)
	})
}

// Nodes exchange a word over NPL. What arrives differs between nodes, so it must
// not be written into the state as it is.
func ExampleUNL_Receive() {
	contract.Run(func(ctx *contract.Context) error {
		if ctx.ReadOnly {
			return nil
		}
		if err := ctx.UNL.Send([]byte("ready")); err != nil {
			return err
		}
		limit, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		heard := map[string]bool{}
		for len(heard) < len(ctx.UNL.Members()) {
			m, err := ctx.UNL.Receive(limit)
			if err != nil {
				break
			}
			heard[m.From] = true
		}
		fmt.Fprintln(os.Stderr, "heard of", len(heard), "nodes")
		return nil
	})
}

// The owner of the contract adds a node to the UNL.
func ExampleContext_UpdateConfig() {
	const node = "ed5cb83404120ac759609819591ef839b7d222c84f1f08b3012f490586159d2b50"
	contract.Run(func(ctx *contract.Context) error {
		cfg, err := ctx.Config()
		if err != nil {
			return err
		}
		cfg.UNL = append(cfg.UNL, node)
		return ctx.UpdateConfig(cfg)
	})
}
