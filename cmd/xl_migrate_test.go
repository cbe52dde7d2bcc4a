package cmd_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"xenferry/lib/testkit"
)

// What xl migrate and xl migrate-receive say to each other, octet by octet.
const (
	xlBanner = "xl migration receiver ready, send binary domain data.\n"
	xlReady  = "domain received, ready to unpause\x00"
	xlGo     = "domain is yours, you are cleared to unpause\x00"
	xlReport = "my copy unpause results are as follows\x00"
)

// moved checks that guest g runs on b alone and proves itself.
func moved(t *testing.T, a, b *simHost, said string) {
	t.Helper()
	if d := a.domain(t, "g"); d != nil {
		t.Errorf("a copy is left: %+v\n%s", d, said)
	}
	if d := a.domain(t, "g--migratedaway"); d != nil {
		t.Errorf("a copy is left: %+v\n%s", d, said)
	}
	if err := b.check(t, "g"); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// listening is the address that a receiver says it listens on.
func listening(t *testing.T, p *process) string {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end) && !p.over(); time.Sleep(5 * time.Millisecond) {
		for lines := bufio.NewScanner(strings.NewReader(p.stderr.String())); lines.Scan(); {
			if _, address, ok := strings.Cut(lines.Text(), "listening on "); ok && strings.HasSuffix(p.stderr.String(), "\n") {
				return address
			}
		}
	}
	t.Fatalf("nobody listens\n%s", p.stderr.String())
	return ""
}

// TestXLMigrate moves guests over every transport that there is.
func TestXLMigrate(t *testing.T) {
	a, b := newHost(t, "--memory", "128M"), newHost(t, "--memory", "128M")
	dir, err := os.MkdirTemp("", "xl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for i, c := range []struct{ listen, kind string }{
		{"", "hvm"}, {"tcp:127.0.0.1:0", "pv64"}, {"unix:" + dir + "/s", "hvm"}, {"tcp:127.0.0.1:0", "pvh"}, {"", "pv32"},
	} {
		id := a.create(t, append(busy, "--kind", c.kind)...)
		dest, receiver := "exec:xl-stream receive --host "+b.spec, (*process)(nil)
		if c.listen != "" {
			receiver = start(t, "xl-stream", "receive", "--host", b.spec, "--listen", c.listen, "--once")
			dest = listening(t, receiver)
		}
		_, said, status := try(t, "xl-stream", "send", "--host", a.spec, "g", dest)
		if receiver != nil && receiver.wait() != 0 {
			t.Errorf("receive: %s", receiver.stderr.String())
		}
		if status != 0 {
			t.Fatalf("%d, %s over %q: exit status %d\n%s", i, c.kind, c.listen, status, said)
		}
		moved(t, a, b, said)
		if c.kind == "hvm" && b.devices(t, b.domain(t, "g").ID).Log {
			t.Error("the emulator's log is on")
		}
		run(t, "xc-sim", "destroy", "--host", b.spec, "g")
		_ = id
	}
}

// TestXLReceiveMany: a listening receiver takes several guests at a time, and outlives senders that make no sense.
func TestXLReceiveMany(t *testing.T) {
	a, b := newHost(t, "--memory", "128M"), newHost(t, "--memory", "128M")
	receiver := start(t, "xl-stream", "receive", "--host", b.spec, "--listen", "tcp:127.0.0.1:0")
	dest := listening(t, receiver)
	nonsense, err := net.Dial("tcp", strings.TrimPrefix(dest, "tcp:"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nonsense.Close() }()
	if _, err := nonsense.Write(make([]byte, 48)); err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(nonsense); err != nil || string(said) != xlBanner {
		t.Errorf("%q, %v", said, err)
	}
	var senders []*process
	for i := range 3 {
		name := fmt.Sprint("g", i)
		a.create(t, "--name", name, "--kind", pick(rand.New(rand.NewPCG(1, uint64(i))), "hvm", "pv64"), "--memory", "8M", "--workload", "uniform:3000")
		senders = append(senders, start(t, "xl-stream", "send", "--host", a.spec, name, dest))
	}
	for i, s := range senders {
		if s.wait() != 0 {
			t.Errorf("%s", s.stderr.String())
		}
		if err := b.check(t, fmt.Sprint("g", i)); err != nil {
			t.Error(err)
		}
	}
	_ = receiver.cmd.Process.Signal(syscall.SIGTERM)
	if status := receiver.wait(); status != 0 {
		t.Errorf("receive ended with %d\n%s", status, receiver.stderr.String())
	}
}

// TestXLReceiveShort: a listening receiver outlives a shortage of descriptors; a sender that says nothing is not waited for for ever, and
// who comes when there are as many as may be is served after one of them.
func TestXLReceiveShort(t *testing.T) {
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	receiver := start(t, "xl-stream", "receive", "--host", b.spec, "--link-timeout", "3s", "--most", "1", "--listen", "tcp:127.0.0.1:0")
	dest := listening(t, receiver)
	var before unix.Rlimit
	pid := receiver.cmd.Process.Pid
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}, nil); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("tcp", strings.TrimPrefix(dest, "tcp:"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	says := func(what string) {
		t.Helper()
		for end := time.Now().Add(patience); !strings.Contains(receiver.stderr.String(), what); time.Sleep(5 * time.Millisecond) {
			if receiver.over() || time.Now().After(end) {
				t.Fatalf("%q is not said\n%s", what, receiver.stderr.String())
			}
		}
	}
	says("too many open files")
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	banner := make([]byte, len(xlBanner))
	if _, err := io.ReadFull(silent, banner); err != nil {
		t.Fatalf("%v\n%s", err, receiver.stderr.String())
	}
	a.create(t, "--name", "g", "--kind", "pvh", "--memory", "8M", "--workload", "uniform:3000")
	run(t, "xl-stream", "send", "--host", a.spec, "g", dest)
	says("nothing came within 3s")
	moved(t, a, b, receiver.stderr.String())
}

// xlPeer is a script that speaks as xl migrate-receive does, around our restore; the domain is made by it, and afterwards
// is let run by answer.
func xlPeer(b *simHost, dir, answer string) string {
	return fmt.Sprintf(`exec:cd %s; printf '%s\n'; xl-stream restore --host %s --paused || exit 1; printf '%s\0'; head -c %d >go; %s`,
		dir, strings.TrimSuffix(xlBanner, "\n"), b.spec, strings.TrimSuffix(xlReady, "\x00"), len(xlGo), answer)
}

// TestXLSendToXL: a receiver that speaks as xl's does gets what it expects, and what it says is believed.
func TestXLSendToXL(t *testing.T) {
	report := "printf '" + strings.TrimSuffix(xlReport, "\x00") + "\\0'; "
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	destroy := "xc-sim destroy --host " + b.spec + " g; "
	for _, c := range []struct {
		name, answer, says string
		status             int
		runs               string // where the guest can be proved afterwards
	}{
		{"done", "xc-sim unpause --host " + b.spec + " g; " + report + "printf '\\0'", "the target has it", 0, "b"},
		{"fails and gives back", destroy + report + "printf '\\3'; cat go", "status 3.*runs on", 1, "a"},
		{"fails and does not", destroy + report + "printf '\\3'", "not known whether", 1, "suspended"},
		{"dies", destroy, "not known whether", 1, "suspended"},
		{"says something else", destroy + "echo hello; cat >/dev/null", "not known whether", 1, "suspended"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			a.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M", "--workload", "uniform:3000")
			_, said, status := try(t, "xl-stream", "send", "--host", a.spec, "g", xlPeer(b, dir, c.answer))
			if status != c.status {
				t.Errorf("exit status %d\n%s", status, said)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "go")); err != nil || string(got) != xlGo {
				t.Errorf("GO was %q, %v", got, err)
			}
			for _, part := range strings.Split(c.says, ".*") {
				if !strings.Contains(said, part) {
					t.Errorf("%q is not said:\n%s", part, said)
				}
			}
			switch c.runs {
			case "b":
				moved(t, a, b, said)
				run(t, "xc-sim", "destroy", "--host", b.spec, "g")
				return
			case "suspended":
				d := a.domain(t, "g--migratedaway")
				if d == nil || !d.Suspended() {
					t.Fatalf("domain %+v\n%s", d, said)
				}
				run(t, "xc-save", "--host", a.spec, "--resume", fmt.Sprint(d.ID))
				if err := a.Rename(t.Context(), d.ID, "g"); err != nil {
					t.Fatal(err)
				}
			}
			if err := a.check(t, "g"); err != nil {
				t.Errorf("%v\n%s", err, said)
			}
			if !a.emulates(t, a.domain(t, "g").ID) {
				t.Errorf("the guest runs, and its emulator does not\n%s", said)
			}
			run(t, "xc-sim", "destroy", "--host", a.spec, "g")
		})
	}
}

// TestXLSendRefused: before GO, whatever the other end does leaves the guest running here, under its own name.
func TestXLSendRefused(t *testing.T) {
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	a.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M", "--workload", "uniform:3000")
	banner := "printf '" + strings.TrimSuffix(xlBanner, "\n") + "\\n'; "
	for _, peer := range []string{
		"exec:exit 1", "exec:echo 'bash: xl-stream: command not found'", "exec:" + banner, "exec:" + banner + "head -c 1000000 >/dev/null",
		"exec:" + banner + "cat >/dev/null", "exec:" + banner + "xl-stream unwrap >/dev/null; echo no",
		"exec:" + banner + "xl-stream restore --paused --host " + b.spec + "; xc-sim destroy --host " + b.spec + " g",
		"unix:/nowhere", "tcp:127.0.0.1:1",
	} {
		if peer == "exec:"+banner+"cat >/dev/null" {
			peer = "exec:" + banner + "head -c 1000000 >/dev/null; exec sleep 0"
		}
		_, said, status := try(t, "xl-stream", "send", "--host", a.spec, "g", peer)
		if status != 1 {
			t.Errorf("%s: exit status %d\n%s", peer, status, said)
		}
		if d := a.domain(t, "g"); d == nil || d.Shutdown || d.Paused || d.LogDirty || a.devices(t, d.ID).Log {
			t.Fatalf("%s: %+v\n%s", peer, d, said)
		}
		if err := a.check(t, "g"); err != nil {
			t.Errorf("%s: %v\n%s", peer, err, said)
		}
	}
}

// TestXLSendStuck: a target that reads no further holds nobody: whoever gives up has his guest back.
func TestXLSendStuck(t *testing.T) {
	a := newHost(t, "--memory", "64M")
	a.create(t, append(busy, "--kind", "hvm")...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	p := start(t, "xl-stream", "send", "--host", a.spec, "g", "tcp:"+l.Addr().String())
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, xlBanner); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if status := p.wait(); status != 1 || !strings.Contains(p.stderr.String(), "runs on") {
		t.Errorf("exit status %d\n%s", status, p.stderr.String())
	}
	if d := a.domain(t, "g"); d == nil || d.Shutdown || d.LogDirty || a.devices(t, d.ID).Log {
		t.Errorf("%+v\n%s", d, p.stderr.String())
	}
	if err := a.check(t, "g"); err != nil {
		t.Error(err)
	}
}

// TestXLReceiveFromXL: what a stock xl migrate sent, GO behind the stream included, is answered as stock xl answers.
func TestXLReceiveFromXL(t *testing.T) {
	for _, name := range testkit.Captures {
		if !strings.Contains(name, "xlmigrate") {
			continue
		}
		for _, paused := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " paused ", paused), func(t *testing.T) {
				f, err := os.Open(testkit.Capture(t, name))
				if err != nil {
					t.Fatal(err)
				}
				defer closeAll(f)
				in, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				h := newHost(t, "--memory", "256M")
				r, w := pipe(t)
				words := []string{"xl-stream", "receive", "--host", h.spec}
				if paused {
					words = append(words, "-p")
				}
				p := startWith(t, in, w, nil, words...)
				closeAll(w)
				said, err := io.ReadAll(r)
				closeAll(r)
				if err != nil {
					t.Fatal(err)
				}
				status := p.wait()
				want := xlBanner + xlReady + xlReport + "\x00"
				if string(said) != want || status != 0 {
					t.Errorf("exit status %d, said %q, want %q\n%s", status, said, want, p.stderr.String())
				}
				all, err := h.Domains(t.Context())
				if err != nil || len(all) != 1 || strings.Contains(all[0].Name, "--") || all[0].Paused != paused {
					t.Errorf("%+v, %v", all, err)
				}
			})
		}
	}
}

// TestXLReceiveNoGo: without GO, or with something else, the domain goes, and the source is told so.
func TestXLReceiveNoGo(t *testing.T) {
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	a.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M")
	file := filepath.Join(t.TempDir(), "g.save")
	run(t, "xl-stream", "save", "--host", a.spec, "g", file)
	image, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tail := range []string{"", "domain is yours", strings.Repeat("x", len(xlGo))} {
		var out locked
		p := startWith(t, io.MultiReader(bytes.NewReader(image), strings.NewReader(tail)), &out, nil, "xl-stream", "receive", "--host", b.spec)
		if status := p.wait(); status != 1 || out.String() != xlBanner+xlReady+xlReport+"\xff"+xlGo {
			t.Errorf("%q: exit status %d, said %q\n%s", tail, status, out.String(), p.stderr.String())
		}
		if all, err := b.Domains(t.Context()); err != nil || len(all) > 0 {
			t.Errorf("%q: %+v, %v", tail, all, err)
		}
	}
}
