package emulator

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"xenferry/lib/guest"
	"xenferry/lib/qmp"
)

func startTest(t *testing.T, spec guest.Spec) *qmp.Conn {
	t.Helper()
	dir, err := os.MkdirTemp("", "qmp") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	e, err := Start(filepath.Join(dir, "s"), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	c, err := qmp.Dial(t.Context(), filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// call makes a call that must succeed.
func call(t *testing.T, c *qmp.Conn, name string, args any) {
	t.Helper()
	if err := c.Call(t.Context(), name, args, nil); err != nil {
		t.Fatal(err)
	}
}

// A state goes from one emulator to another of the same domain, by descriptor or by name; garbled, early, or another's it
// is refused.
func TestStateMoves(t *testing.T) {
	spec := guest.Spec{UUID: uuid.New(), Kind: guest.HVM}
	a, b, other := startTest(t, spec), startTest(t, spec), startTest(t, guest.Spec{UUID: uuid.New(), Kind: guest.HVM})
	file := filepath.Join(t.TempDir(), "state")
	give := func(c *qmp.Conn, flag int) string {
		f, err := os.OpenFile(file, flag|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		name, err := c.AddFD(t.Context(), f)
		if err != nil || !strings.HasPrefix(name, "/dev/fdset/") {
			t.Fatal(name, err)
		}
		return name
	}
	name := give(a, os.O_WRONLY)
	save := map[string]any{"filename": name, "live": false}
	var refused *qmp.Error
	if err := a.Call(t.Context(), "xen-save-devices-state", save, nil); !errors.As(err, &refused) {
		t.Errorf("saved while running: %v", err)
	}
	call(t, a, "stop", nil) // with an event before its answer
	both := map[string]any{"filename": give(a, os.O_RDWR), "live": false}
	if err := a.Call(t.Context(), "xen-save-devices-state", both, nil); !errors.As(err, &refused) {
		t.Errorf("saved to what can be read, too: %v", err)
	}
	call(t, a, "xen-save-devices-state", save)
	want, got := status(t, a), status(t, b)
	if want.Steps < 3 || got.Steps >= want.Steps {
		t.Fatalf("steps %d and %d", want.Steps, got.Steps)
	}
	for _, c := range []*qmp.Conn{b, other} {
		if err := c.Call(t.Context(), "xen-load-devices-state", map[string]string{"filename": file}, nil); !errors.As(err, &refused) {
			t.Errorf("loaded while running: %v", err)
		}
		call(t, c, "stop", nil)
	}
	if err := b.Call(t.Context(), "xen-load-devices-state", map[string]string{"filename": give(b, os.O_RDWR)}, nil); !errors.As(err, &refused) {
		t.Errorf("loaded from what can be written, too: %v", err)
	}
	call(t, b, "xen-load-devices-state", map[string]string{"filename": give(b, os.O_RDONLY)})
	if got := status(t, b); got != want {
		t.Errorf("loaded %+v, want %+v", got, want)
	}
	if err := other.Call(t.Context(), "xen-load-devices-state", map[string]string{"filename": file}, nil); !errors.As(err, &refused) {
		t.Errorf("another domain's: %v", err)
	}
	state, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 9, 25, 40, 70, len(state) - 1} {
		bad := bytes.Clone(state)
		bad[at] ^= 1
		d := newDevices(spec)
		if err := d.load(bad); err == nil || d.steps != 0 {
			t.Errorf("loaded with octet %d changed", at)
		}
	}
	if d := newDevices(spec); d.load(state[:len(state)-1]) == nil {
		t.Error("loaded a short one")
	}
}

type deviceStatus struct {
	Steps uint64 `json:"steps"`
	Log   bool   `json:"dirty-log"`
}

func status(t *testing.T, c *qmp.Conn) (s deviceStatus) {
	t.Helper()
	if err := c.Call(t.Context(), "x-xenferry-devices", nil, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLogAndStatus(t *testing.T) {
	c := startTest(t, guest.Spec{UUID: uuid.New(), Kind: guest.HVM})
	call(t, c, "xen-set-global-dirty-log", map[string]bool{"enable": true})
	if !status(t, c).Log {
		t.Error("the log is off")
	}
	var refused *qmp.Error
	for _, name := range []string{"no-such-command", "xen-set-global-dirty-log", "add-fd", "xen-save-devices-state"} {
		if err := c.Call(t.Context(), name, nil, nil); !errors.As(err, &refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var s struct{ Running bool }
	call(t, c, "stop", nil)
	if err := c.Call(t.Context(), "query-status", nil, &s); err != nil || s.Running {
		t.Error(s, err)
	}
	call(t, c, "cont", nil)
	if err := c.Call(t.Context(), "query-status", nil, &s); err != nil || !s.Running {
		t.Error(s, err)
	}
}

// TestClientLeaves: one that closes with the greeting unread resets the connection, which must not take the host along.
func TestClientLeaves(t *testing.T) {
	name := filepath.Join(t.TempDir(), "s")
	e, err := Start(name, guest.Spec{UUID: uuid.New()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	for range 50 {
		c, err := net.Dial("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		one := make([]byte, 1)
		if _, err := c.Read(one); err != nil { // the rest of the greeting is there, too
			t.Fatal(err)
		}
		_ = c.Close()
	}
}
