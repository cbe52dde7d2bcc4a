package cmd_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestXLReceiveInto has another command make the domain that is received, as xl does on a real host. What it fails at, or does
// that it must not, leaves the guest running at its source and nothing on the target.
func TestXLReceiveInto(t *testing.T) {
	a, b := newHost(t, "--memory", "128M"), newHost(t, "--memory", "128M")
	toolstack := "xl-stream restore --host " + b.spec
	for _, c := range []struct{ kind, into, says string }{
		{"hvm", toolstack + " --paused", ""},
		{"pv64", "exec " + toolstack + " --paused", ""},
		{"pvh", "exit 7", "exit 7: exit status 7; no domain was made"},
		{"pvh", "cat >/dev/null", "there is no new domain of UUID"},
		{"hvm", toolstack, "which only its source may allow; half-built domain"},
		{"pv64", toolstack + " --paused; exit 3", "exit status 3; half-built domain"},
		{"pv64", toolstack + " --paused; kill -KILL $PPID", "its process was killed; half-built domain"},
	} {
		a.create(t, append(busy, "--kind", c.kind)...)
		receiver := start(t, "xl-stream", "receive", "--host", b.spec, "--into", c.into, "--listen", "tcp:127.0.0.1:0", "--once")
		_, said, status := try(t, "xl-stream", "send", "--host", a.spec, "g", listening(t, receiver))
		received := receiver.wait()
		said += receiver.stderr.String()
		if c.says == "" {
			if status != 0 || received != 0 {
				t.Fatalf("%s: exit statuses %d, %d\n%s", c.into, status, received, said)
			}
			moved(t, a, b, said)
			if err := b.Destroy(t.Context(), b.domain(t, "g").ID); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if status != 1 || received == 0 || !strings.Contains(said, c.says) {
			t.Errorf("%s: exit statuses %d, %d, want %q\n%s", c.into, status, received, c.says, said)
		}
		if b.domain(t, "g") != nil || b.domain(t, "g--incoming") != nil {
			t.Errorf("%s: a copy is left\n%s", c.into, said)
		}
		if err := a.check(t, "g"); err != nil {
			t.Errorf("%s: %v\n%s", c.into, err, said)
		}
		if err := a.Destroy(t.Context(), a.domain(t, "g").ID); err != nil {
			t.Fatal(err)
		}
	}
}

// TestXLRestoreInto: of what another command was to make of a file nothing is left after a failure, unless it has run; and that is
// said.
func TestXLRestoreInto(t *testing.T) {
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	a.create(t, append(busy, "--kind", "pv64")...)
	file, pid := filepath.Join(t.TempDir(), "g.save"), filepath.Join(t.TempDir(), "pid")
	run(t, "xl-stream", "save", "--host", a.spec, "--leave", "running", "g", file)
	image, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	toolstack := "xl-stream restore --host " + b.spec
	careless := "xc-sim create --paused --memory 8M --name g --host " + b.spec + " --uuid " + a.domain(t, "g").UUID.String() + "; cat >/dev/null; "
	for _, c := range []struct {
		name, into string
		signal     syscall.Signal // in the middle of the stream; 0 for none
		says       string         // that of a failure, what became of it behind " D "
		runs       bool
	}{
		{"done", toolstack + "; true", 0, "", true},
		{"interrupted", toolstack + "; true", syscall.SIGTERM, "interrupted by SIGTERM; ", false},
		{"interrupted without care", careless, syscall.SIGINT, "interrupted by SIGINT; half-built domain D destroyed", false},
		{"killed", toolstack + "; true", syscall.SIGKILL, "", false},
		{"killed without care", careless, syscall.SIGKILL, "its process was killed; half-built domain D destroyed", false},
		{"fails", toolstack + " --paused; exit 3", 0, "exit status 3; half-built domain D destroyed", false},
		{"fails and goes on", careless + "sleep 1000 & echo $! >" + pid + "; exit 3", 0, "exit status 3; half-built domain D destroyed", false},
		{"fails too late", toolstack + "; exit 3", 0, "exit status 3; domain D has run already, and stays", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, out := pipe(t)
			defer closeAll(in, out)
			p := startWith(t, in, nil, nil, "xl-stream", "restore", "--host", b.spec, "--into", c.into)
			closeAll(in)
			if c.signal != 0 {
				if _, err := out.Write(image[:len(image)/2]); err != nil {
					t.Fatal(err)
				}
				until(t, "it makes the domain", func() bool { return b.domain(t, "g") != nil })
				_ = p.cmd.Process.Signal(c.signal)
			} else {
				_, _ = out.Write(image)
			}
			status := p.wait()
			if c.signal != 0 {
				_, _ = out.Write(image[len(image)/2:]) // to whoever reads it yet
			}
			said := regexp.MustCompile(`domain \d+`).ReplaceAllString(p.stderr.String(), "domain D")
			if (status == 0) != (c.name == "done") || !strings.Contains(said, c.says) {
				t.Errorf("exit status %d, want %q\n%s", status, c.says, said)
			}
			d := b.domain(t, "g")
			if (d != nil) != c.runs {
				t.Errorf("%+v\n%s", d, said)
			}
			if c.runs {
				if err := b.check(t, "g"); err != nil {
					t.Errorf("%v\n%s", err, said)
				}
			}
			if d != nil {
				_ = b.Destroy(t.Context(), d.ID)
			}
		})
	}
	number, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := strconv.Atoi(strings.TrimSpace(string(number))); err != nil || !errors.Is(unix.Kill(id, 0), unix.ESRCH) {
		t.Errorf("what the command has started, process %d, is still there: %v", id, err)
	}
	_, said, status := try(t, "xl-stream", "restore", "--host", "sim:/nowhere", "--into", "cat >/dev/null; exit 3", file)
	if status != 1 || !strings.Contains(said, "exit status 3; whether a domain is left of it is not known") {
		t.Errorf("without a host: exit status %d\n%s", status, said)
	}
}

// TestXLRecoverSameHost moves a guest within a host, where its UUID means two domains at a time, and loses the link when the
// target has it, or before: recovery ends with one of them, the right one.
func TestXLRecoverSameHost(t *testing.T) {
	a := newHost(t, "--memory", "128M")
	journals := t.TempDir()
	both := " --host " + a.spec + " --journal " + journals
	const banner, held = "54", "43"
	for _, c := range []struct{ name, back string }{
		{"before it is held", "head -c " + banner},
		{"after GO", "{ head -c " + banner + "; head -c " + held + "; }"},
	} {
		first := a.create(t, append(busy, "--kind", "pv64")...)
		_, said, status := try(t, "bash", "-c", `xl-stream send$0 g "exec:xl-stream receive$0 | $1"`, both, c.back)
		if status != 1 {
			t.Errorf("%s: send: exit status %d\n%s", c.name, status, said)
		}
		said += run(t, "bash", "-c", `xl-stream recover$0 --peer "xl-stream recover$0"`, both)
		d := a.domain(t, "g")
		if d == nil || (d.ID == first) != (c.name == "before it is held") {
			t.Fatalf("%s: %+v\n%s", c.name, d, said)
		}
		if err := a.check(t, "g"); err != nil {
			t.Errorf("%s: %v\n%s", c.name, err, said)
		}
		for _, other := range []string{"g--incoming", "g--migratedaway"} {
			if d := a.domain(t, other); d != nil {
				t.Errorf("%s: %+v is left\n%s", c.name, d, said)
			}
		}
		if err := a.Destroy(t.Context(), d.ID); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(journals)
		for _, f := range left {
			if strings.HasSuffix(f.Name(), ".source") || strings.HasPrefix(f.Name(), "lock-") {
				t.Errorf("%s: %s is left", c.name, f.Name())
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
}
