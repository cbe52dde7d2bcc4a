package transport

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Peer says who is at the other end of the link, as far as this end can tell: an address of tcp or vsock, else whom sshd has let in,
// by $SSH_CONNECTION; empty for a pipe or socket on this machine.
func (l *Link) Peer() string {
	switch a, err := unix.Getpeername(int(l.In.Fd())); a := a.(type) {
	case *unix.SockaddrInet4:
		return "tcp:" + netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return "tcp:" + netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrVM:
		return fmt.Sprintf("vsock:%d:%d", a.CID, a.Port)
	default:
		if words := strings.Fields(os.Getenv("SSH_CONNECTION")); err != nil && len(words) > 0 {
			return "ssh:" + words[0]
		}
	}
	return ""
}
