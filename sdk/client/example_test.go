package client_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"evernode/hotpocket/key"
	"evernode/sdk/client"
)

// Submit an input, learn which ledger it is in and get the contract's answer.
func Example() {
	// The examples run against a small cluster of one node; yours has addresses
	// of its own.
	servers, nodeKey, stop := client.StartCluster()
	defer stop()

	userKey, err := client.GenerateKey()
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	outputs := make(chan client.Output, 1)
	c, err := client.Connect(ctx, client.Options{
		Servers:     servers,
		Key:         userKey,
		Protocol:    client.BSON,
		TrustedKeys: []key.Public{nodeKey},
		Handler:     client.Handler{Output: func(o client.Output) { outputs <- o }},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	s, err := c.Submit(ctx, []byte("hello"))
	if err != nil {
		log.Fatal(err)
	}
	ledger, err := s.Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("in ledger", ledger.SeqNo)
	for _, o := range (<-outputs).Outputs {
		fmt.Printf("%s\n", o)
	}
	// Output:
	// in ledger 6
	// echo: hello
	// done
}

// Keep a user's key in a file and be the same user with it later.
func ExampleGenerateKey() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "user.key")

	userKey, err := client.GenerateKey()
	if err != nil {
		log.Fatal(err)
	}
	// It is a secret: nobody else may read the file.
	if err := os.WriteFile(file, []byte(userKey.Hex()), 0o600); err != nil {
		log.Fatal(err)
	}

	text, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	again, err := key.ParsePrivate(strings.TrimSpace(string(text)))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the same user:", again.Public() == userKey.Public())
	// Output: the same user: true
}

// Ask a node without going through a ledger.
func ExampleClient_Read() {
	servers, _, stop := client.StartCluster()
	defer stop()
	userKey, err := client.GenerateKey()
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Connect(ctx, client.Options{Servers: servers, Key: userKey})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	answer, err := c.Read(ctx, []byte("the balance"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", answer)

	status, err := c.Status(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("last ledger", status.Ledger.SeqNo, status.VoteStatus)
	// Output:
	// 1 read the balance
	// last ledger 5 synced
}
