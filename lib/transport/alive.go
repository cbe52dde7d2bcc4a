package transport

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// aliveCount is how many signs of life may be missed before a link is given up.
const aliveCount = 3

// seconds is d in whole seconds, at least one.
func seconds(d time.Duration) int { return max(1, int(d.Round(time.Second)/time.Second)) }

// KeepAlive has a link fail once its other side has been silent for that long. Over TCP, the kernel looks: nothing was
// acknowledged, or there is no answer to the question whether it is there. Over unix and vsock, where no kernel can be asked, only
// who writes is not kept waiting: nothing was taken. That is a property of the socket, which every Writer of it heeds,
// also a child's. Without it a link lasts for ever if whoever is at its other end is gone, or stands still. 0 leaves it so,
// and so do links that are no sockets, which are a matter of the command.
func (l *Link) KeepAlive(silence time.Duration) error {
	if silence <= 0 {
		return nil
	}
	for _, f := range []*os.File{l.In, l.Out} {
		if f == nil {
			continue
		}
		if err := keepAlive(int(f.Fd()), silence); err != nil {
			return fmt.Errorf("keep the link alive: %w", err)
		}
	}
	return nil
}

func keepAlive(fd int, silence time.Duration) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	switch {
	case err != nil:
		return nil
	case domain == unix.AF_UNIX, domain == unix.AF_VSOCK:
		limit := unix.NsecToTimeval(int64(silence))
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	case domain != unix.AF_INET && domain != unix.AF_INET6:
		return nil
	}
	every := seconds(silence / (aliveCount + 1))
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, every},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, every},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, aliveCount},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence / time.Millisecond)},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return err
		}
	}
	return nil
}
