package cmd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenferry/lib/transport"
)

// sink reads a pipe until it is told to be stuck, and fills it then: who writes to it waits.
type sink struct {
	r, w *os.File // the test's own descriptions, of a pipe that others have, too
	done chan struct{}
}

// newSink begins to read the pipe that path leads to, such as /proc/PID/fd/0.
func newSink(t *testing.T, path string) *sink {
	t.Helper()
	s := &sink{done: make(chan struct{})}
	var err error
	if s.r, err = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	if s.w, err = os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(s.r, s.w) })
	go func() {
		defer close(s.done)
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{s.r})
	}()
	return s
}

// stuck ends the reading, and leaves not an octet of room.
func (s *sink) stuck(t *testing.T) {
	if err := s.r.SetReadDeadline(time.Now()); err != nil {
		t.Error(err)
	}
	<-s.done
	raw, err := s.w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1 << 20, 1} { // of much, a part that fits is written
		for err == nil {
			_ = raw.Write(func(fd uintptr) bool {
				_, err = unix.Write(int(fd), make([]byte, size))
				return true
			})
		}
		if !errors.Is(err, unix.EAGAIN) {
			t.Error(err)
		}
		err = nil
	}
}

// TestXLTailStuck: who reads everything up to the emulator's state, and nothing of that, holds nobody. A signal, and the loss
// of the guardian, give the guest back, whatever the stream goes through.
func TestXLTailStuck(t *testing.T) {
	h := newHost(t, "--memory", "64M")
	hold := filepath.Join(t.TempDir(), "hold") // who opens it waits
	if err := unix.Mkfifo(hold, 0o600); err != nil {
		t.Fatal(err)
	}
	banner := "printf '" + strings.TrimSuffix(xlBanner, "\n") + "\\n'"
	for _, c := range []struct {
		name, ends, says string
		words            []string
	}{
		{"save to a pipe", "TERM", "interrupted by SIGTERM", []string{"save", "g"}},
		{"save to a pipe", "INT", "interrupted by SIGINT", []string{"save", "g"}},
		{"save to a pipe", "guardian", "the guardian was killed", []string{"save", "g"}},
		{"send over descriptors", "TERM", "interrupted by SIGTERM", []string{"send", "g", "fd:3,1"}},
		{"send to a command's child", "TERM", "interrupted by SIGTERM", []string{"send", "g", "exec:exec 2>/dev/null; " + banner + "; cat " + hold + "; exit 1"}},
	} {
		t.Run(c.name+", "+c.ends, func(t *testing.T) {
			id := h.create(t, append(busy, "--kind", "hvm")...)
			defer func() { _ = h.Destroy(context.Background(), id) }()
			var out *sink
			at := make(chan struct{})
			s := newStage(t, func(step string, pid int) {
				switch step {
				case "saver: run xc-save, 1":
					if out == nil {
						out = newSink(t, fmt.Sprintf("/proc/%d/fd/0", findUnder(pid, "sh")))
					}
				case "saver: xc-save is done, 1":
					out.stuck(t)
					close(at)
				}
			})
			r, w := pipe(t)
			back, theirs := pipe(t)
			defer closeAll(r, w, back, theirs)
			if c.words[0] == "save" || !strings.HasPrefix(c.words[2], "exec:") {
				out = newSink(t, fmt.Sprintf("/proc/self/fd/%d", w.Fd()))
			}
			if _, err := io.WriteString(theirs, xlBanner); err != nil {
				t.Fatal(err)
			}
			words := append([]string{c.words[0], "--host", h.spec}, c.words[1:]...)
			p := startWith(t, nil, w, []*os.File{back}, s.words(t, "saver", words...)...)
			select {
			case <-at:
			case <-p.done:
				t.Fatalf("it ended: %s", p.stderr.String())
			}
			switch c.ends {
			case "TERM":
				_ = p.cmd.Process.Signal(syscall.SIGTERM)
			case "INT":
				_ = p.cmd.Process.Signal(syscall.SIGINT)
			default:
				killUnder(p.cmd.Process.Pid, "xenferry-guard")
			}
			status := p.wait()
			if said := p.stderr.String(); status != 1 || !strings.Contains(said, "runs on") || !strings.Contains(said, c.says) {
				t.Errorf("exit status %d\n%s", status, said)
			}
			if f, err := os.OpenFile(hold, os.O_RDWR, 0); err == nil { // cat goes on, if it is still there
				closeAll(f)
			}
			if d := h.domain(t, "g"); d == nil || d.Shutdown || d.LogDirty || !h.emulates(t, id) {
				t.Fatalf("%+v\n%s", d, p.stderr.String())
			}
			if err := h.check(t, "g"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSaveStuck: the same of xc-save, for itself: whoever reads no further than the pages, the guest runs on.
func TestSaveStuck(t *testing.T) {
	h := newHost(t, "--memory", "64M")
	h.create(t, append(busy, "--kind", "pv64")...)
	r, w := pipe(t)
	defer closeAll(r)
	p := startWith(t, nil, w, nil, "xc-save", "--host", h.spec, "g")
	closeAll(w)
	until(t, "it is suspended", func() bool { return h.domain(t, "g").Suspended() })
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if status := p.wait(); status != 1 || !strings.Contains(p.stderr.String(), "runs on") {
		t.Errorf("exit status %d\n%s", status, p.stderr.String())
	}
	if err := h.check(t, "g"); err != nil {
		t.Error(err)
	}
}

// TestXLLinkTimeout: over a socket whose other end lives, and takes nothing any more, a target is given up by itself.
func TestXLLinkTimeout(t *testing.T) {
	h := newHost(t, "--memory", "64M")
	h.create(t, append(busy, "--kind", "hvm")...)
	for _, at := range []transport.Address{
		{Scheme: transport.Unix, Path: "s"}, {Scheme: transport.TCP, Host: "127.0.0.1:0"}, {Scheme: transport.VSock, CID: 1, Port: 50153},
	} {
		t.Run(string(at.Scheme), func(t *testing.T) {
			dest := fmt.Sprintf("%s:%d:%d", at.Scheme, at.CID, at.Port)
			if at.Scheme == transport.Unix {
				dir, err := os.MkdirTemp("", "link") // a socket's path must be short
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = os.RemoveAll(dir) }()
				at.Path = filepath.Join(dir, "s")
				dest = "unix:" + at.Path
			}
			l, err := transport.Listen(at)
			if at.Scheme == transport.VSock && err != nil {
				t.Skipf("vsock on loopback needs Linux's module vsock_loopback: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			if at.Scheme == transport.TCP {
				dest = "tcp:" + l.Addr().String()
			}
			p := start(t, "xl-stream", "send", "--host", h.spec, "--not-live", "--link-timeout", "1s", "g", dest)
			k, err := l.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = k.Close() }()
			if _, err := io.WriteString(k.Out, xlBanner); err != nil {
				t.Fatal(err)
			}
			_, _ = io.CopyN(io.Discard, k.In, 1<<20)
			status := p.wait()
			if said := p.stderr.String(); status != 1 || !strings.Contains(said, "connection timed out; domain 1 runs on") {
				t.Errorf("exit status %d\n%s", status, said)
			}
			if err := h.check(t, "g"); err != nil {
				t.Error(err)
			}
		})
	}
}
