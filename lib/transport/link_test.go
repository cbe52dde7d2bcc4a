package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseAddress(t *testing.T) {
	for _, c := range []struct {
		in     string
		listen bool
		want   Address // the zero Address: refused
	}{
		{"exec:cat | tee log", false, Address{Scheme: Exec, Command: "cat | tee log"}},
		{"ssh:root@host2", false, Address{Scheme: SSH, Host: "root@host2"}},
		{"tcp:host:8002", false, Address{Scheme: TCP, Host: "host:8002"}},
		{"tcp:[fe80::1%eth0]:8002", false, Address{Scheme: TCP, Host: "[fe80::1%eth0]:8002"}},
		{"tcp::8002", true, Address{Scheme: TCP, Host: ":8002"}},
		{"unix:/run/x:y", false, Address{Scheme: Unix, Path: "/run/x:y"}},
		{"vsock:3:1234", false, Address{Scheme: VSock, CID: 3, Port: 1234}},
		{"vsock:1234", true, Address{Scheme: VSock, CID: anyCID, Port: 1234}},
		{"vsock-unix:/run/vm.sock:52", false, Address{Scheme: VSockUnix, Path: "/run/vm.sock", Port: 52}},
		{"fd:5", false, Address{Scheme: FD, In: 5, Out: 5}},
		{"fd:5,6", false, Address{Scheme: FD, In: 5, Out: 6}},
		{in: ""}, {in: "tcp:"}, {in: "host2"}, {in: "ssh:-oProxyCommand=x"}, {in: "ssh:a b"}, {in: "tcp:host"},
		{in: "tcp:host:"}, {in: "vsock:1234"}, {in: "vsock:3:x"}, {in: "vsock:3:4294967296"}, {in: "vsock-unix:/x"},
		{in: "vsock-unix::5"}, {in: "fd:x"}, {in: "fd:-1"}, {in: "rdma:x"},
		{in: "exec:cat", listen: true}, {in: "ssh:h", listen: true}, {in: "fd:0", listen: true},
	} {
		got, err := ParseAddress(c.in, c.listen)
		if (err == nil) != (c.want != Address{}) || err == nil && got != c.want {
			t.Errorf("%q: %+v, %v", c.in, got, err)
		}
	}
}

// talk holds a link against a peer that answers "ping" by "pong" and then ends.
func talk(t *testing.T, l *Link) {
	t.Helper()
	if _, err := l.Out.WriteString("ping"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(l.In)
	if err != nil || string(b) != "pong" {
		t.Errorf("%q, %v", b, err)
	}
	for _, f := range []*os.File{l.In, l.Out} {
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("flags %#x, %v: a child wants it blocking", flags, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// answer is the peer of talk.
func answer(l *Link) error {
	var b [4]byte
	if _, err := io.ReadFull(l.In, b[:]); err != nil || string(b[:]) != "ping" {
		return fmt.Errorf("%q, %w", b, err)
	}
	_, err := l.Out.WriteString("pong")
	return errors.Join(err, l.Close())
}

func TestSockets(t *testing.T) {
	dir, err := os.MkdirTemp("", "link") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, c := range []struct{ listen, dial string }{
		{"tcp:127.0.0.1:0", "tcp:"}, {"unix:" + dir + "/s", "unix:" + dir + "/s"},
		{"vsock-unix:" + dir + "/vm:52", "unix:" + dir + "/vm_52"}, // a guest that connects to its host
		{"vsock:1:50152", "vsock:1:50152"},
	} {
		t.Run(c.listen, func(t *testing.T) {
			at, err := ParseAddress(c.listen, true)
			if err != nil {
				t.Fatal(err)
			}
			l, err := Listen(at)
			if at.Scheme == VSock && err != nil {
				t.Skipf("vsock on loopback needs Linux's module vsock_loopback: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			answered := make(chan error, 1)
			go func() {
				k, err := l.Accept(t.Context())
				if err == nil {
					err = answer(k)
				}
				answered <- err
			}()
			if at.Scheme == TCP {
				c.dial += l.Addr().String()
			}
			to, err := ParseAddress(c.dial, false)
			if err != nil {
				t.Fatal(err)
			}
			k, err := Dial(t.Context(), to, Options{})
			if err != nil {
				t.Fatal(err)
			}
			talk(t, k)
			if err := <-answered; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestListenEnds(t *testing.T) {
	l, err := Listen(Address{Scheme: TCP, Host: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := l.Accept(ctx); !errors.Is(err, why) {
		t.Error(err)
	}
}

func TestCommands(t *testing.T) {
	l, err := Dial(t.Context(), Address{Scheme: Exec, Command: "head -c4 >/dev/null; printf pong"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	talk(t, l)
	if l, err = Dial(t.Context(), Address{Scheme: Exec, Command: "exit 3"}, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Error(err)
	}

	bin := t.TempDir() // an ssh that shows what it was told
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte("#!/bin/sh\necho \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if l, err = Dial(t.Context(), Address{Scheme: SSH, Host: "me@there"}, Options{Remote: "xl migrate-receive"}); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(l.In); err != nil || string(b) != "-- me@there xl migrate-receive\n" {
		t.Errorf("%q, %v", b, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestAbort: what a command has started ends with it. Its output then does, too.
func TestAbort(t *testing.T) {
	if hasTerminal() {
		t.Skip("a command shares the process group of one that has a terminal: setsid provides one without")
	}
	l, err := Dial(t.Context(), Address{Scheme: Exec, Command: "sleep 1000 & echo begun; wait"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	begun := make([]byte, len("begun\n"))
	if _, err := io.ReadFull(l.In, begun); err != nil {
		t.Fatal(err)
	}
	l.Abort()
	if b, err := io.ReadAll(l.In); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	if err := l.Close(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Error(err)
	}
}

// A monitor's socket: CONNECT is asked and answered, and not an octet of the guest's is lost.
func TestVSockUnix(t *testing.T) {
	dir, err := os.MkdirTemp("", "link")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for i, c := range []struct{ reply, fails string }{
		{"OK 1073741824\npong", ""}, {"NO such port\n", "answered by"}, {"", "no answer"}, {strings.Repeat("O", 99), "answered by"},
	} {
		a := Address{Scheme: VSockUnix, Path: fmt.Sprintf("%s/%d", dir, i), Port: 52}
		monitor, err := net.Listen("unix", a.Path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := monitor.Accept()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			want := "CONNECT 52\n"
			b := make([]byte, len(want))
			if _, err := io.ReadFull(conn, b); err == nil && string(b) == want && c.reply != "" {
				_, _ = io.WriteString(conn, c.reply)
				_, _ = io.CopyN(io.Discard, conn, 4)
			}
		}()
		l, err := Dial(t.Context(), a, Options{})
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%q: %v", c.reply, err)
			}
			_ = monitor.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		talk(t, l)
		_ = monitor.Close()
	}
}

func TestDescriptors(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		l, err := Dial(t.Context(), Address{Scheme: FD, In: pair[1], Out: pair[1]}, Options{})
		if err == nil {
			err = answer(l)
		}
		answered <- err
	}()
	l, err := Dial(t.Context(), Address{Scheme: FD, In: pair[0], Out: pair[0]}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	talk(t, l)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if _, err := Dial(t.Context(), Address{Scheme: FD, In: 1 << 19, Out: 1 << 19}, Options{}); !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
}
