package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"evernode/hotpocket/key"
)

func pair(t testing.TB, serve func(context.Context, key.Public, Kind, []byte) ([]byte, error), change func(*Config)) (server, client *node) {
	t.Helper()
	server = start(t, 1, func(n *node, c *Config) {
		n.serve = serve
		if change != nil {
			change(c)
		}
	})
	client = start(t, 2, func(n *node, c *Config) {
		knowing(server)(n, c)
		if change != nil {
			change(c)
		}
	})
	server.connected(client)
	client.connected(server)
	return server, client
}

func TestRequestsRunConcurrentlyUpToTheBound(t *testing.T) {
	const bound, requests = 3, 100
	var running, most atomic.Int32
	release := make(chan struct{})
	server, client := pair(t, func(_ context.Context, _ key.Public, kind Kind, payload []byte) ([]byte, error) {
		n := running.Add(1)
		for {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		<-release
		running.Add(-1)
		return append([]byte{byte(kind)}, payload...), nil
	}, func(c *Config) { c.ServeConcurrency = bound })
	var wg sync.WaitGroup
	for i := range requests {
		wg.Go(func() {
			answer, err := client.mesh.Request(t.Context(), server.key, Kind(i), fmt.Appendf(nil, "request %d", i))
			if want := string([]byte{byte(i)}) + fmt.Sprintf("request %d", i); err != nil || string(answer) != want {
				t.Errorf("request %d: %q, %v", i, answer, err)
			}
		})
	}
	poll(t, "full load", func() bool { return running.Load() == bound })
	close(release)
	wg.Wait()
	if m := most.Load(); m != bound {
		t.Errorf("%d ran at once, want %d", m, bound)
	}
}

func TestRequestTimeoutCancelsService(t *testing.T) {
	ended := make(chan error, 1)
	server, client := pair(t, func(ctx context.Context, _ key.Public, _ Kind, _ []byte) ([]byte, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}, nil)
	// The deadline goes with the request.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.mesh.Request(ctx, server.key, 1, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	wait(t, ended)
	poll(t, "end of service", func() bool { return serving(server) == 0 })
	// Giving up without a deadline is told.
	ctx, cancel = context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := client.mesh.Request(ctx, server.key, 1, nil)
		done <- err
	}()
	poll(t, "service", func() bool { return serving(server) == 1 })
	cancel()
	if err := wait(t, done); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	wait(t, ended)
}

func serving(n *node) int {
	sessions := *n.mesh.sessions.Load()
	if len(sessions) == 0 {
		return 0
	}
	b := &sessions[0].bulk
	b.mu.Lock()
	c := b.conn
	b.mu.Unlock()
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.serving)
}

func wait[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing comes")
		panic("unreachable")
	}
}

func TestManyCancelledRequestsDoNotBreakTheRules(t *testing.T) {
	server, client := pair(t, func(ctx context.Context, _ key.Public, kind Kind, _ []byte) ([]byte, error) {
		if kind == 1 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return []byte("fine"), nil
	}, func(c *Config) { c.ServeConcurrency = 1 })
	var wg sync.WaitGroup
	for i := range 10 * maxOutstanding {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Duration(i%7)*time.Millisecond, cancel)
			client.mesh.Request(ctx, server.key, 1, nil)
		})
	}
	wg.Wait()
	answer, err := client.mesh.Request(t.Context(), server.key, 2, nil)
	if err != nil || string(answer) != "fine" {
		t.Errorf("%q, %v", answer, err)
	}
	client.mu.Lock()
	defer client.mu.Unlock()
	if count(client.events, "down", key.Public{}) > 0 {
		t.Errorf("dropped: %s", server.logs)
	}
	poll(t, "free slots", func() bool { return len((*client.mesh.sessions.Load())[0].bulk.slots) == 0 })
}

func TestRequestSizes(t *testing.T) {
	const limit = 1 << 20
	server, client := pair(t, func(_ context.Context, _ key.Public, kind Kind, p []byte) ([]byte, error) {
		switch kind {
		case 1:
			return p, nil
		case 2:
			return make([]byte, limit+1), nil
		}
		return nil, errors.New("no such thing as " + strings.Repeat("x", 2*maxErrorText))
	}, func(c *Config) { c.MaxMessage = limit })
	big := bytes.Repeat([]byte("0123456789abcdef"), limit/16)
	for _, p := range [][]byte{nil, []byte("small"), big} {
		answer, err := client.mesh.Request(t.Context(), server.key, 1, p)
		if err != nil || !bytes.Equal(answer, p) {
			t.Errorf("%d bytes came back as %d, %v", len(p), len(answer), err)
		}
	}
	if _, err := client.mesh.Request(t.Context(), server.key, 1, append(big, 0)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("oversize request: %v", err)
	}
	var remote *RemoteError
	if _, err := client.mesh.Request(t.Context(), server.key, 2, nil); !errors.As(err, &remote) || !strings.Contains(remote.Text, "at most") {
		t.Errorf("oversize answer: %v", err)
	}
	if _, err := client.mesh.Request(t.Context(), server.key, 3, nil); !errors.As(err, &remote) || !strings.HasPrefix(remote.Text, "no such thing") || len(remote.Text) != maxErrorText {
		t.Errorf("refusal: %v", err)
	}
}

func TestRequestEndsWithThePeer(t *testing.T) {
	ended := make(chan error, 1)
	server, client := pair(t, func(ctx context.Context, _ key.Public, _ Kind, _ []byte) ([]byte, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}, nil)
	done := make(chan error, 1)
	go func() {
		_, err := client.mesh.Request(t.Context(), server.key, 1, nil)
		done <- err
	}()
	poll(t, "service", func() bool { return serving(server) == 1 })
	client.stop()
	if err := wait(t, done); err == nil {
		t.Error("no error")
	}
	wait(t, ended)
}

func TestLostBulkConnectionIsOpenedAnew(t *testing.T) {
	for _, c := range []struct {
		name string
		// by says whose end breaks, asking who then makes a request: 0 is the
		// dialer.
		by, asking int
	}{{"dialer breaks and asks", 0, 0}, {"acceptor breaks and asks", 1, 1}, {"dialer breaks, acceptor asks", 0, 1}, {"acceptor breaks, dialer asks", 1, 0}} {
		t.Run(c.name, func(t *testing.T) {
			acceptor, dialer := pair(t, nil, nil)
			nodes := []*node{dialer, acceptor}
			ask := func(i int) error {
				_, err := nodes[i].mesh.Request(t.Context(), nodes[1-i].key, 1, []byte("x"))
				return err
			}
			if err := ask(c.asking); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				b := &(*nodes[c.by].mesh.sessions.Load())[0].bulk
				b.mu.Lock()
				conn := b.conn
				b.mu.Unlock()
				// The other side has not noticed anything yet when the
				// request is made, so that may fail, but not for long.
				b.lost(conn, errBulkLost)
				poll(t, "request that works again", func() bool { return ask(c.asking) == nil })
			}
		})
	}
}

func TestRequestsBothWaysAtOnceShareOneConnection(t *testing.T) {
	for range 10 {
		a, b := pair(t, nil, nil)
		var wg sync.WaitGroup
		for range 8 {
			for _, p := range [][2]*node{{a, b}, {b, a}} {
				wg.Go(func() {
					if _, err := p[0].mesh.Request(t.Context(), p[1].key, 1, nil); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		for _, n := range []*node{a, b} {
			bulk := &(*n.mesh.sessions.Load())[0].bulk
			bulk.mu.Lock()
			if bulk.attempt != 1 {
				t.Errorf("%d bulk connections, want 1", bulk.attempt)
			}
			bulk.mu.Unlock()
		}
		a.stop()
		b.stop()
	}
}

func TestTooManyRequestsAreAgainstTheRules(t *testing.T) {
	release := make(chan struct{})
	server, client := pair(t, func(context.Context, key.Public, Kind, []byte) ([]byte, error) {
		<-release
		return nil, nil
	}, nil)
	defer close(release)
	s := (*client.mesh.sessions.Load())[0]
	c, err := s.bulk.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxWaiting + 1 {
		frame := append(newFrame(frameRequest, requestHead), 0, 0, 0, byte(i), 0, 0, 0, 0, 1)
		if err := c.link.enqueue(frame, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	server.logged("requests at once")
	server.until("end", func(e []event) bool { return count(e, "down", client.key) == 1 })
}
