package sim_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/sim"
	"xenferry/lib/sim/machine"
	"xenferry/lib/sim/simtest"
)

// software is a Software whose guests only note what happens to them.
type software struct {
	mu       sync.Mutex
	did      []string
	suspends chan struct{} // receives when a guest is asked to suspend; nil: it does at once
}

func (w *software) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did = append(w.did, fmt.Sprintf(format, args...))
}

// took returns what happened since it was last called.
func (w *software) took() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.did, " ")
	w.did = nil
	return s
}

type testGuest struct{ *software }

func (w *software) Attach(v *machine.View) (sim.Guest, error) {
	if v.Spec().Name == "stranger" {
		return nil, errors.New("no guest that I know")
	}
	w.note("attach")
	return testGuest{w}, nil
}

func (g testGuest) Start()                 { g.note("start") }
func (g testGuest) Stop()                  { g.note("stop") }
func (g testGuest) Resumed(cancelled bool) { g.note("resumed(%v)", cancelled) }
func (g testGuest) Suspend(ctx context.Context) error {
	if g.suspends != nil {
		g.suspends <- struct{}{}
		<-ctx.Done()
		g.note("gave up")
		return context.Cause(ctx)
	}
	g.note("suspend")
	return nil
}

func (w *software) Call(_ context.Context, s *sim.Server, op string, req json.RawMessage) (any, error) {
	switch op {
	case "halted":
		var id guest.DomID
		if err := json.Unmarshal(req, &id); err != nil {
			return nil, err
		}
		return "done", s.Halted(id, func(sim.Guest) error { w.note("halted"); return nil })
	case "echo":
		return req, nil
	}
	return nil, fmt.Errorf("no operation %q", op)
}

// ready makes a PVH domain that can be unpaused.
func ready(t *testing.T, c *sim.Client, name string) guest.DomID {
	t.Helper()
	id, err := c.Create(t.Context(), guest.Spec{Name: name, Kind: guest.PVH, VCPUs: 1, MaxPages: 100})
	if err != nil {
		t.Fatal(err)
	}
	blob := make([]byte, 8+24+8+1032+8)
	copy(blob, []byte{1, 0, 0, 0, 24, 0, 0, 0, 0x86, 0x12, 0x38, 0x54, 1})
	copy(blob[8+24:], []byte{2, 0, 0, 0, 0x08, 0x04})
	if err := c.SetHVMContext(t.Context(), id, blob); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestLife(t *testing.T) {
	w := &software{}
	c := simtest.New(t, sim.Options{Software: w})
	ctx := t.Context()
	id := ready(t, c, "")
	for _, step := range []struct {
		what string
		do   func() error
		want string
	}{
		{"pause again", func() error { return c.Pause(ctx, id) }, ""},
		{"unpause once", func() error { return c.Unpause(ctx, id) }, ""},
		{"unpause", func() error { return c.Unpause(ctx, id) }, "attach start"},
		{"pause", func() error { return c.Pause(ctx, id) }, "stop"},
		{"unpause again", func() error { return c.Unpause(ctx, id) }, "start"},
		{"call", func() error { return c.Call(ctx, "halted", id, nil) }, "stop halted start"},
		{"suspend", func() error { return c.Suspend(ctx, id) }, "suspend"},
		{"pause the suspended", func() error { return c.Pause(ctx, id) }, ""},
		{"resume the paused", func() error { return c.Resume(ctx, id) }, "resumed(true)"},
		{"unpause the resumed", func() error { return c.Unpause(ctx, id) }, "start"},
		{"shut down", func() error { return c.Shutdown(ctx, id, guest.ShutdownSuspend) }, "stop"},
		{"resume", func() error { return c.Resume(ctx, id) }, "resumed(true) start"},
		{"destroy", func() error { return c.Destroy(ctx, id) }, "stop"},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if got := w.took(); got != step.want {
			t.Errorf("%s: the guest saw %q, want %q", step.what, got, step.want)
		}
	}
	stranger := ready(t, c, "stranger")
	if err := c.Unpause(ctx, stranger); err == nil || !strings.Contains(err.Error(), "no guest that I know") {
		t.Errorf("unpause a domain with an unknown guest: %v", err)
	}
	if i, err := c.Info(ctx, stranger); err != nil || !i.Paused || i.EverUnpaused {
		t.Errorf("then it is %+v, %v", i, err)
	}
}

// A suspend whose caller gives up is withdrawn, and the domain runs on; the client can still be used.
func TestSuspendCancelled(t *testing.T) {
	w := &software{suspends: make(chan struct{})}
	c := simtest.New(t, sim.Options{Software: w})
	id := ready(t, c, "")
	if err := c.Unpause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("changed my mind")
	go func() { <-w.suspends; cancel(reason) }()
	if err := c.Suspend(ctx, id); !errors.Is(err, reason) {
		t.Errorf("suspend: %v", err)
	}
	// By then the guest has given up: it cannot suspend any more.
	if got := w.took(); got != "attach start gave up" {
		t.Errorf("the guest saw %q", got)
	}
	if err := c.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if i, err := c.Info(t.Context(), id); err != nil || i.Shutdown {
		t.Errorf("then the domain is %+v, %v", i, err)
	}
	if err := c.Suspend(t.Context(), id); err == nil {
		t.Error("a paused domain was suspended")
	}
}

// Destroying a domain ends a suspend that somebody waits for.
func TestDestroySuspending(t *testing.T) {
	w := &software{suspends: make(chan struct{})}
	c := simtest.New(t, sim.Options{Software: w})
	id := ready(t, c, "")
	if err := c.Unpause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	destroyed := make(chan error)
	go func() { <-w.suspends; destroyed <- c.Destroy(t.Context(), id) }()
	if err := c.Suspend(t.Context(), id); err == nil {
		t.Error("a domain that was destroyed has suspended")
	}
	if err := <-destroyed; err != nil {
		t.Error(err)
	}
	if got := w.took(); got != "attach start gave up stop" {
		t.Errorf("the guest saw %q", got)
	}
}

func TestCall(t *testing.T) {
	c := simtest.New(t, sim.Options{Software: &software{}})
	in, out := map[string]int{"a": 1}, map[string]int{}
	if err := c.Call(t.Context(), "echo", in, &out); err != nil || out["a"] != 1 {
		t.Errorf("echo of %v is %v, %v", in, out, err)
	}
	if err := c.Call(t.Context(), "dance", nil, nil); err == nil || !strings.Contains(err.Error(), `no operation "dance"`) {
		t.Errorf("an unknown operation: %v", err)
	}
	if err := simtest.New(t, sim.Options{}).Call(t.Context(), "echo", in, &out); err == nil {
		t.Error("a server without software answers calls")
	}
}

// The machine cleans nothing up for a client that dies but its mappings, whose writes count.
func TestClientDies(t *testing.T) {
	_, c := simtest.NewServer(t, sim.Options{})
	ctx := t.Context()
	id := simtest.Domain(t, c, guest.PV64, 1, 100)
	dying := simtest.Dial(t, c.Path())
	gfns := []guest.GFN{1, 2, 3}
	if err := errors.Join(dying.Populate(ctx, id, gfns), dying.SetLogDirty(ctx, id, true), dying.Pause(ctx, id)); err != nil {
		t.Fatal(err)
	}
	if _, err := dying.Map(ctx, id, gfns[1:], guest.ReadWrite); err != nil {
		t.Fatal(err)
	}
	if err := c.Depopulate(ctx, id, gfns[1:2]); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a frame that is mapped writably was taken back: %v", err)
	}
	dying.Close()
	// The server notices in its own time; the frames are free of the mapping then.
	for c.Depopulate(ctx, id, gfns[1:2]) != nil {
		time.Sleep(time.Millisecond)
	}
	b := guest.NewBitmap(10)
	if n, err := c.Dirty(ctx, id, 10, b, true, false); err != nil || n != 1 || !b.Test(3) {
		t.Errorf("%d frames are dirty, %b: %v", n, b, err)
	}
	i, err := c.Info(ctx, id)
	if err != nil || !i.LogDirty || !i.Paused || i.TotPages != 2 {
		t.Errorf("the domain is %+v, %v", i, err)
	}
	if _, err := dying.Info(ctx, id); err == nil {
		t.Error("a closed client answers")
	}
}

func TestConcurrent(t *testing.T) {
	c := simtest.New(t, sim.Options{})
	var all sync.WaitGroup
	for n := range 8 {
		id := simtest.Domain(t, c, guest.HVM, 1, 1000)
		all.Go(func() {
			for i := range 20 {
				g := make([]guest.GFN, 40)
				for j := range g {
					g[j] = guest.GFN(i*40 + j)
				}
				err := c.Populate(t.Context(), id, g)
				m, err2 := c.Map(t.Context(), id, g, guest.ReadWrite)
				if err := errors.Join(err, err2); err != nil {
					t.Error(err)
					return
				}
				for _, p := range m.Pages {
					p[0] = byte(n)
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
				g[0] = 0
				if m, err = c.Map(t.Context(), id, g[:1], guest.ReadOnly); err != nil || m.Pages[0][0] != byte(n) {
					t.Errorf("domain %d reads another's page: %v", id, err)
				}
			}
		})
	}
	all.Wait()
}

func TestListen(t *testing.T) {
	c := simtest.New(t, sim.Options{})
	if l, err := sim.Listen(c.Path()); err == nil {
		l.Close()
		t.Error("a socket that is served was replaced")
	}
	dir, err := os.MkdirTemp("", "sim")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	for range 2 { // the second time the first one's socket is in the way
		l, err := sim.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("the socket's mode: %v, %v", fi.Mode(), err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
}

func benchHost(b *testing.B, pages int) (*sim.Client, guest.DomID, []guest.GFN) {
	var o sim.Options
	o.Memory, o.Prealloc = uint64(pages)*guest.PageSize+64<<20, true
	c := simtest.New(b, o)
	id := simtest.Domain(b, c, guest.HVM, 1, uint64(pages))
	gfns := make([]guest.GFN, pages)
	for i := range gfns {
		gfns[i] = guest.GFN(i)
	}
	return c, id, gfns
}

func BenchmarkRoundTrip(b *testing.B) {
	c, id, _ := benchHost(b, 1)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for b.Loop() {
		if _, err := c.MaxGFN(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMap1024(b *testing.B) {
	for name, prot := range map[string]guest.Prot{"ro": guest.ReadOnly, "rw": guest.ReadWrite} {
		b.Run(name, func(b *testing.B) {
			c, id, gfns := benchHost(b, 1024)
			if err := c.Populate(b.Context(), id, gfns); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(gfns)) * guest.PageSize)
			for b.Loop() {
				m, err := c.Map(b.Context(), id, gfns, prot)
				if err != nil {
					b.Fatal(err)
				}
				m.Close()
			}
		})
	}
}

func BenchmarkPopulate1024(b *testing.B) {
	c, id, gfns := benchHost(b, 1<<18)
	b.SetBytes(1024 * guest.PageSize)
	at := 0
	for b.Loop() {
		if at == len(gfns) {
			b.StopTimer()
			if err := c.Depopulate(b.Context(), id, gfns); err != nil {
				b.Fatal(err)
			}
			at = 0
			b.StartTimer()
		}
		if err := c.Populate(b.Context(), id, gfns[at:at+1024]); err != nil {
			b.Fatal(err)
		}
		at += 1024
	}
}

// BenchmarkFirstTouch reads, or writes, each page of a guest for the first time in the client.
func BenchmarkFirstTouch(b *testing.B) {
	const pages = 1 << 16
	for name, prot := range map[string]guest.Prot{"read": guest.ReadOnly, "write": guest.ReadWrite} {
		b.Run(name, func(b *testing.B) {
			c, id, gfns := benchHost(b, pages)
			if err := c.Populate(b.Context(), id, gfns); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(pages * guest.PageSize)
			sum := 0
			for b.Loop() {
				fresh := simtest.Dial(b, c.Path())
				m, err := fresh.Map(b.Context(), id, gfns, prot)
				if err != nil {
					b.Fatal(err)
				}
				for _, p := range m.Pages {
					if prot == guest.ReadWrite {
						p[0] = 1
					} else {
						sum += int(p[0])
					}
				}
				m.Close()
				fresh.Close()
			}
			_ = sum
		})
	}
}
