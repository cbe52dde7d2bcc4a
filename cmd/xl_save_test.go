package cmd_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/qmp"
	"xenferry/lib/testkit"
)

// devices are the simulated emulator's as it tells them.
type devices struct {
	Steps uint64 `json:"steps"`
	Log   bool   `json:"dirty-log"`
}

func (h *simHost) devices(t *testing.T, id guest.DomID) (d devices) {
	t.Helper()
	c, err := qmp.Dial(t.Context(), h.QMPSocket(id))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Call(t.Context(), "x-xenferry-devices", nil, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestXLSaveDevices: the emulator goes on where it stopped, on another host or after a failure, and its log is off.
func TestXLSaveDevices(t *testing.T) {
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	id := a.create(t, "--name", "g", "--kind", "hvm", "--memory", "8M", "--workload", "uniform:2000")
	for range 20 {
		a.devices(t, id)
	}
	if _, _, status := try(t, "xl-stream", "save", "--host", a.spec, "g", "/dev/full"); status != 1 {
		t.Errorf("saved onto a full disk: %d", status)
	}
	before := a.devices(t, id)
	if before.Steps < 20 || before.Log {
		t.Fatalf("after a failure: %+v", before)
	}
	file := filepath.Join(t.TempDir(), "g.save")
	run(t, "xl-stream", "save", "--host", a.spec, "--live", "g", file)
	run(t, "xl-stream", "restore", "--host", b.spec, file)
	after := b.devices(t, b.domain(t, "g").ID)
	if after.Steps <= before.Steps || after.Log {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if running := b.devices(t, b.domain(t, "g").ID); running.Steps <= after.Steps {
		t.Error("the devices do not run")
	}
}

// TestXLSaveKill kills save at random moments: then the file is the one that was there, and the guest runs or can be made
// to; or it is the new one, complete, and the guest does not run. No other file is left.
func TestXLSaveKill(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	h := newHost(t, "--memory", "128M")
	file := filepath.Join(t.TempDir(), "g.save")
	seen := map[string]int{}
	nameless, err := unix.Open(filepath.Dir(file), unix.O_TMPFILE|unix.O_WRONLY, 0o600)
	if err == nil {
		_ = unix.Close(nameless)
	}
	for range count(30, 6, 100) {
		victim := pick(r, "xl-stream", "xl-stream", "xc-save", "xenferry-guard")
		h.create(t, append(busy, "--kind", pick(r, "hvm", "pv64"))...)
		old := []byte("the file of yesterday")
		if err := os.WriteFile(file, old, 0o600); err != nil {
			t.Fatal(err)
		}
		p := start(t, "xl-stream", "save", "--host", h.spec, "--live", "g", file)
		time.Sleep(moment(r))
		killUnder(p.cmd.Process.Pid, victim)
		status := p.wait()
		now, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if names, _ := filepath.Glob(filepath.Dir(file) + "/.*"); len(names) > 0 && nameless >= 0 {
			t.Fatalf("%s killed, left are %q", victim, names)
		}
		d := h.domain(t, "g")
		said := fmt.Sprintf("%s killed; exit status %d\n%s", victim, status, p.stderr.String())
		switch running := d != nil && !d.Shutdown && !d.Paused; {
		case bytes.Equal(now, old) && running:
			seen["stayed"]++
		case bytes.Equal(now, old) && d != nil:
			seen["suspended"]++
			run(t, "xc-save", "--host", h.spec, "--resume", "g")
		case !bytes.Equal(now, old) && !running:
			seen["saved"]++
			run(t, "verify-v2", "-qi", file)
		default:
			t.Fatalf("domain %+v, new file %v\n%s", d, !bytes.Equal(now, old), said)
		}
		if d := h.domain(t, "g"); d != nil {
			if !d.Shutdown {
				if err := h.check(t, "g"); err != nil {
					t.Errorf("%v\n%s", err, said)
				}
				if d.Kind == guest.HVM && (h.devices(t, d.ID).Log || !h.emulates(t, d.ID)) {
					t.Errorf("the emulator's log is on, or it stands still\n%s", said)
				}
			}
			if err := h.Destroy(t.Context(), d.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("outcomes: %v", seen)
}

// TestXLRestoreCaptures: files of stock xl, of guests without an emulator, become domains by the configuration in them.
func TestXLRestoreCaptures(t *testing.T) {
	for _, name := range testkit.Captures {
		if strings.Contains(name, "hvm") { // its emulator's state is of a real one
			continue
		}
		t.Run(name, func(t *testing.T) {
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
			p := startWith(t, in, nil, nil, "xl-stream", "restore", "--host", h.spec, "--paused")
			if status := p.wait(); status != 0 {
				t.Fatalf("exit status %d\n%s", status, p.stderr.String())
			}
			all, err := h.Domains(t.Context())
			if err != nil || len(all) != 1 || all[0].Name == "" || !all[0].Paused {
				t.Errorf("%+v, %v", all, err)
			}
			_, _ = io.Copy(io.Discard, in)
		})
	}
}
