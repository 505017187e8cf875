package devkit

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// freePorts checks that the ports of the given nodes can be listened on. Those in
// held are left out, because nodes that are about to be stopped hold them.
func (c *Cluster) freePorts(nodes []int, held map[int]bool) error {
	for _, i := range nodes {
		for _, p := range []struct {
			port int
			flag string
		}{{c.state.UserPort + i - 1, "--user-port"}, {c.state.PeerPort + i - 1, "--peer-port"}} {
			if held[p.port] {
				continue
			}
			l, err := net.Listen("tcp4", "0.0.0.0:"+strconv.Itoa(p.port))
			if err != nil {
				return fmt.Errorf("port %d for node %d cannot be used: %w%s; stop what uses it, or choose others with evernode dev deploy %s PORT",
					p.port, i, err, portHolder(p.port), p.flag)
			}
			l.Close()
		}
	}
	return nil
}

// portHolder says which process listens on a TCP port, as far as we may know.
func portHolder(port int) string {
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			// sl local_address rem_address st … inode; 0A is LISTEN.
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && inodes[target] {
			proc := filepath.Dir(filepath.Dir(link))
			name, _ := os.ReadFile(filepath.Join(proc, "comm"))
			return fmt.Sprintf(" (process %s, %s, listens there)", filepath.Base(proc), strings.TrimSpace(string(name)))
		}
	}
	return " (another user's process listens there)"
}
