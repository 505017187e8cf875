//go:build !linux

package mesh

import (
	"net"
	"time"
)

func setUserTimeout(net.Conn, time.Duration) {}

func setLowWater(net.Conn, int) {}

const priorityBulk, priorityInteractive = 0, 0

func setPriority(net.Conn, int) {}
