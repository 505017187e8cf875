package remote

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// peerUID returns the user of the process at the other end of a Unix socket, as
// it was when the socket was connected.
func peerUID(conn net.Conn) (uint32, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%s is no connection of this machine's", conn.RemoteAddr())
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, fmt.Errorf("who is at the other end: %w", credErr)
	}
	return cred.Uid, nil
}

// ownUsers allows this process's user and root.
func ownUsers(uid uint32) bool { return uid == 0 || uid == uint32(os.Geteuid()) }
