package client

import (
	"fmt"
	"os"

	"evernode/hotpocket/key"
)

// StartCluster starts a cluster of one node for the examples.
func StartCluster() (servers []string, nodeKey key.Public, stop func()) {
	h := &exampleHost{}
	c := newCluster(h, 1)
	return c.servers(), testKey(h, 1).Public(), h.stop
}

type exampleHost struct{ cleanups []func() }

func (h *exampleHost) Helper()          {}
func (h *exampleHost) Error(v ...any)   { fmt.Println(v...) }
func (h *exampleHost) Fatal(v ...any)   { panic(fmt.Sprint(v...)) }
func (h *exampleHost) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

func (h *exampleHost) TempDir() string {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (h *exampleHost) stop() {
	for i := len(h.cleanups) - 1; i >= 0; i-- {
		h.cleanups[i]()
	}
}
