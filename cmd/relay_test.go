package cmd_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// relayTo is where the environment of a relay says to pass its connection on.
const relayTo = "XENFERRY_RELAY"

// What a relay is told by signals.
const (
	cutLink  = unix.SIGUSR1 // close both connections
	halfOpen = unix.SIGUSR2 // be gone as a machine without power is: nothing is answered, and nothing is closed
)

// startRelay starts a process that passes one connection on to address, and returns where it listens.
func startRelay(t *testing.T, address string) (*process, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "env", relayTo+"="+address, self)
	return p, listening(t, p)
}

// relay is the process that startRelay starts. Its test binary's main calls it.
func relay(to string) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, cutLink, halfOpen)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "listening on tcp:%s\n", l.Addr())
	from, err := l.Accept()
	if err != nil {
		return err
	}
	there, err := net.Dial("tcp", to)
	if err != nil {
		return err
	}
	ends := [2]net.Conn{from, there}
	done := make(chan error, 2)
	for i := range ends {
		go func() {
			_, err := io.Copy(ends[i], ends[1-i])
			_ = ends[i].(*net.TCPConn).CloseWrite()
			done <- err
		}()
	}
	for over := 0; over < 2; {
		select {
		case s := <-signals:
			if s == cutLink {
				return nil
			}
			for _, c := range ends {
				if err := vanish(c.(syscall.Conn)); err != nil {
					return err
				}
			}
			select {} // until it is killed
		case <-done:
			over++
		}
	}
	return nil
}

// vanish has the kernel drop whatever comes for a connection, before it looks at it.
func vanish(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	program := unix.SockFprog{Len: 1, Filter: &drop}
	e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program)
	})
	if e != nil {
		return e
	}
	return err
}
