package mesh

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout lets the kernel give a connection up when what was sent is
// not acknowledged for d. It is an addition to the keep-alives, so failure to
// set it is of no consequence.
func setUserTimeout(c net.Conn, d time.Duration) {
	setTCPOption(c, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}

// setLowWater lets a connection take no more than n bytes that cannot be sent
// yet, so that what waits does so in our queue, where it can be overtaken.
func setLowWater(c net.Conn, n int) {
	setTCPOption(c, unix.TCP_NOTSENT_LOWAT, n)
}

// Priorities of what this machine sends, as its queues to the network know them
// (TC_PRIO_BULK and TC_PRIO_INTERACTIVE of Linux). Nothing of it is seen outside.
const (
	priorityBulk        = 2
	priorityInteractive = 6
)

// setPriority says what goes first where packets wait. Failure is of no
// consequence.
func setPriority(c net.Conn, priority int) {
	setOption(c, unix.SOL_SOCKET, unix.SO_PRIORITY, priority)
}

func setTCPOption(c net.Conn, option, value int) {
	setOption(c, unix.IPPROTO_TCP, option, value)
}

func setOption(c net.Conn, level, option, value int) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), level, option, value)
	})
}
