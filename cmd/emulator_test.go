package cmd_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"xenferry/lib/guest"
	"xenferry/lib/migrate"
	"xenferry/lib/qmp"
)

// emulates reports whether the emulator of a domain runs.
func (h *simHost) emulates(t *testing.T, id guest.DomID) bool {
	t.Helper()
	c, err := qmp.Dial(t.Context(), h.QMPSocket(id))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	var status struct{ Running bool }
	if err := c.Call(t.Context(), "query-status", nil, &status); err != nil {
		t.Fatal(err)
	}
	return status.Running
}

// until waits for something to become so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// TestSaveEmulator: an emulator logs what it writes while xc-save copies live, is stopped for as long as the guest is
// suspended, and goes on with it: after --leave running, --resume, a failure, and a kill.
func TestSaveEmulator(t *testing.T) {
	h := newHost(t, "--memory", "64M")
	id := h.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M", "--workload", "uniform:2000")
	goesOn := func(after string) {
		t.Helper()
		before := h.devices(t, id)
		if now := h.devices(t, id); now.Steps <= before.Steps || now.Log {
			t.Errorf("after %s the devices are %+v, then %+v", after, before, now)
		}
		if err := h.check(t, "g"); err != nil {
			t.Errorf("after %s: %v", after, err)
		}
	}
	// live starts a save that comes to no end until its pipe is read.
	live := func() (*process, *os.File) {
		t.Helper()
		r, w := pipe(t)
		p := startWith(t, nil, w, nil, "xc-save", "--host", h.spec, "--live", "g")
		closeAll(w)
		until(t, "its log is on", func() bool { return h.domain(t, "g").LogDirty })
		if !h.devices(t, id).Log || !h.emulates(t, id) {
			t.Error("while it is copied live, the emulator does not log, or not run")
		}
		return p, r
	}

	p, r := live()
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	closeAll(r)
	if status := p.wait(); status != 0 || !h.domain(t, "g").Suspended() {
		t.Fatalf("exit status %d\n%s", status, p.stderr.String())
	}
	if h.emulates(t, id) || h.devices(t, id).Log {
		t.Error("the guest is suspended, and its devices run, or log")
	}
	run(t, "xc-save", "--host", h.spec, "--resume", "g")
	goesOn("--resume")

	file := filepath.Join(t.TempDir(), "image")
	run(t, "sh", "-c", "xc-save --leave running --host "+h.spec+" g >"+file)
	goesOn("--leave running")

	if _, _, status := try(t, "sh", "-c", "xc-save --host "+h.spec+" g >/dev/full"); status != 1 {
		t.Errorf("onto a full disk: exit status %d", status)
	}
	goesOn("a full disk")

	p, r = live()
	_ = p.cmd.Process.Kill()
	p.wait() // and its guardian, which has stderr
	closeAll(r)
	goesOn("a kill in a live round")

	r, w := pipe(t) // not live: all is written while the guest is suspended
	p = startWith(t, nil, w, nil, "xc-save", "--host", h.spec, "g")
	closeAll(w)
	until(t, "it is stopped", func() bool { return h.domain(t, "g").Suspended() && !h.emulates(t, id) })
	_ = p.cmd.Process.Kill()
	p.wait()
	closeAll(r)
	goesOn("a kill while it was suspended")
}

// TestSaveWithoutEmulator: an HVM guest whose emulator nobody can stop is not saved. One that was is resumed all the same.
func TestSaveWithoutEmulator(t *testing.T) {
	h := newHost(t, "--memory", "64M")
	id := h.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M", "--workload", "uniform:2000")
	if err := os.Remove(h.QMPSocket(id)); err != nil {
		t.Fatal(err)
	}
	_, said, status := try(t, "sh", "-c", "xc-save --host "+h.spec+" --live g | { ! grep .; }")
	if !strings.Contains(said, "its emulator cannot be told to stop") || status != 0 {
		t.Errorf("exit status %d\n%s", status, said)
	}
	if err := h.Suspend(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_, said, status = try(t, "xc-save", "--host", h.spec, "--resume", "g")
	if status != 0 || !strings.Contains(said, "its emulator has to be told") {
		t.Errorf("--resume: exit status %d\n%s", status, said)
	}
	if err := h.check(t, "g"); err != nil {
		t.Error(err)
	}
}

// TestXLSendEmulatorGone: a guest whose emulator was lost meanwhile runs on here without, which is said, and nothing is left to
// recover: neither of a stream that was cut, nor of a hand-over that the target has given back.
func TestXLSendEmulatorGone(t *testing.T) {
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	for name, peer := range map[string]func(remove string) string{
		"cut": func(remove string) string {
			return "exec:printf '" + strings.TrimSuffix(xlBanner, "\n") + "\\n'; head -c 3000000 >/dev/null; " + remove
		},
		"given back": func(remove string) string {
			return xlPeer(b, t.TempDir(), "xc-sim destroy --host "+b.spec+" g; "+remove+
				"; printf '"+strings.TrimSuffix(xlReport, "\x00")+"\\0\\3'; cat go")
		},
	} {
		t.Run(name, func(t *testing.T) {
			id := a.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M", "--workload", "uniform:2000")
			journal := t.TempDir()
			_, said, status := try(t, "xl-stream", "send", "--host", a.spec, "--journal", journal, "--not-live", "g", peer("rm "+a.QMPSocket(id)))
			if status != 1 || !strings.Contains(said, "runs on, but its emulator stands still") || strings.Contains(said, "is suspended") {
				t.Errorf("exit status %d\n%s", status, said)
			}
			if err := a.check(t, "g"); err != nil {
				t.Errorf("%v\n%s", err, said)
			}
			if left, err := migrate.List(journal); err != nil || len(left) > 0 {
				t.Errorf("journals: %+v, %v", left, err)
			}
			if err := a.Destroy(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		})
	}
}
