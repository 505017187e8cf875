package hotpocket

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"evernode/hotpocket/config"
	"evernode/hotpocket/control"
)

// A newcomer that is killed again and again while it joins joins nevertheless.
func TestKilledWhileJoining(t *testing.T) {
	t.Parallel()
	c, ps := processes(t, 3, func(conf *config.Config) { conf.Contract.Consensus.Mode = "public" })
	u := c.nodes[0].user()
	u.must("hello", "ok hello")
	m := c.newcomer("x", c.nodes[1], c.nodes[0].key())
	out, err := os.Create(filepath.Join(t.TempDir(), "x.log"))
	if err != nil {
		t.Fatal(err)
	}
	x := &process{member: m, out: out}
	t.Cleanup(func() {
		if err := x.end(syscall.SIGTERM); err != nil {
			t.Errorf("the newcomer did not stop cleanly: %v", err)
		}
		if out.Close(); t.Failed() {
			b, _ := os.ReadFile(out.Name())
			t.Logf("log of the newcomer:\n%s", b[max(0, len(b)-20000):])
		}
	})
	for range 15 {
		x.launch()
		time.Sleep(time.Duration(10+rand.IntN(200)) * time.Millisecond)
		if err := x.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = x.cmd.Wait() // killed
	}
	x.launch()
	at := c.inStep("the newcomer follows", 2, append(c.nodes, m)...)
	u.must("add "+m.key().String(), "ok add "+m.key().String())
	// Three of four have to agree now.
	if err := ps[2].end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	c.inStep("and counts as a member", at+4, c.nodes[0], c.nodes[1], m)
	ps[2].launch()
	c.inStep("all are there", at+5, append(c.nodes, m)...)
	c.healthy(append(c.nodes, m)...)
	if got, want := m.user().read("log"), u.read("log"); got != want {
		t.Errorf("the newcomer has executed %q, the others %q", got, want)
	}
}

// cable is a connection to a node that can be cut.
type cable struct {
	target string
	l      net.Listener
	mu     sync.Mutex
	cut    bool
	open   map[net.Conn]bool
}

func newCable(t *testing.T, target string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{target: target, l: l, open: make(map[net.Conn]bool)}
	go c.run()
	t.Cleanup(func() { l.Close(); c.set(true) })
	return c
}

func (c *cable) run() {
	for {
		in, err := c.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.target)
		if err != nil {
			in.Close()
			continue
		}
		c.mu.Lock()
		if c.cut {
			in.Close()
			out.Close()
		} else {
			c.open[in], c.open[out] = true, true
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1]) // ends when either side does
					pair[0].Close()
					pair[1].Close()
				}()
			}
		}
		c.mu.Unlock()
	}
}

// set cuts the cable or mends it.
func (c *cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut = cut; cut {
		for conn := range c.open {
			conn.Close()
		}
		clear(c.open)
	}
}

// A node that was cut off and leaves ledgers out on its way back still answers its
// users, and truly.
func TestLeapAnswersUsers(t *testing.T) {
	t.Parallel()
	c := makeCluster(t, 4, 4, trial(t), func(_ int, conf *config.Config) {
		public(conf)
		conf.Contract.Consensus.Roundtime = 200 * time.Millisecond
		conf.Contract.MaxInputLedgerOffset = 40
		conf.Mesh.PeerDiscovery.Enabled = false
	})
	c.tune.leapFrom = 3
	var cables []*cable
	var through, direct []string
	for _, m := range c.nodes[1:] {
		x := newCable(t, m.address())
		cables, through, direct = append(cables, x), append(through, x.l.Addr().String()), append(direct, m.address())
	}
	for i, m := range c.nodes {
		m.edit(func(conf *config.Config) {
			conf.Mesh.KnownPeers = direct
			if i == 0 {
				conf.Mesh.KnownPeers, conf.Mesh.Listen = through, false
			}
		})
		m.start()
	}
	c.inStep("ledgers close", 1, c.nodes...)
	stop := make(chan struct{})
	wait := c.traffic(stop, c.nodes...)
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		for _, x := range cables {
			x.set(true)
		}
		at := c.inStep("the others go on", 0, c.nodes[1:]...)
		c.inStep("for a while", at+20, c.nodes[1:]...)
		for _, x := range cables {
			x.set(false)
		}
		c.eventually("it is back", func(all []control.Status) bool {
			return all[0].VoteStatus == voteSynced && all[0].LedgerSeqNo > at+20
		}, c.nodes[0])
	}
	close(stop)
	fates := wait()
	c.inStep("all are in step", 0, c.nodes...)
	c.healthy(c.nodes...)
	c.verify(fates, c.nodes[1:]...)
	if !c.nodes[0].log.has("the ledgers between are left out") || !c.nodes[0].log.has("users had inputs pending") {
		t.Error("nothing was left out")
	}
}
