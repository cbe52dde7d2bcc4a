package x86_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"xenferry/lib/guest"
	"xenferry/lib/restore"
	"xenferry/lib/save"
	"xenferry/lib/sim/guestos"
	"xenferry/lib/x86"
	"xenferry/lib/xcstream"
)

var (
	_ save.Guest    = x86.Source(nil)
	_ restore.Guest = x86.Target(nil)
)

var release = guest.Release{Major: 4, Minor: 17}

// source is a guest on a host of its own.
type source struct {
	host machineHost
	id   guest.DomID
	os   *guestos.Kernel
}

func build(t testing.TB, o guestos.Options) *source {
	t.Helper()
	h := newHost(t, o.Pages, release, o.Seed)
	id := h.create(t, o.Kind, o.VCPUs, o.MaxPages())
	os, err := guestos.Build(h.hypervisor(t, id), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(os.Stop)
	return &source{h, id, os}
}

// suspend makes source a save.Control.
func (s *source) Suspend(ctx context.Context) error {
	if err := s.os.Suspend(ctx); err != nil {
		return err
	}
	return s.host.m.Shutdown(s.id, guest.ShutdownSuspend)
}

func (s *source) Commit(context.Context) error { return nil }

// quiet is an Observer of both directions.
type quiet struct {
	t testing.TB
}

func (quiet) Begin(save.Round)        {}
func (quiet) Sent(save.Progress)      {}
func (quiet) Done()                   {}
func (quiet) Suspended(time.Duration) {}
func (quiet) Received(int, int)       {}
func (q quiet) Differ(p []guest.PFN)  { q.t.Errorf("VERIFY: %d pages differ, first %#x", len(p), p[0]) }

// save writes the source's stream.
func (s *source) save(t testing.TB, o save.Options) []byte {
	t.Helper()
	g, err := x86.OpenSave(t.Context(), s.host, s.id)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	o.Version = xcstream.Version3
	var out bytes.Buffer
	if err := save.Run(t.Context(), g, &out, o, s, quiet{t}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// load restores a stream into a new domain on host h.
func load(t testing.TB, h machineHost, id guest.DomID, stream []byte) (guest.Rings, error) {
	t.Helper()
	open := func(ctx context.Context, o restore.Opening) (restore.Guest, error) {
		return x86.OpenRestore(ctx, h, id, o.Domain)
	}
	in := bytes.NewReader(stream)
	rings, err := restore.Run(t.Context(), in, open, quiet{t})
	if err == nil && in.Len() > 0 {
		t.Errorf("%d octets of the stream were not read", in.Len())
	}
	return rings, err
}

// passes fails the test unless the guest proves itself.
func passes(t testing.TB, when string, r *guestos.Report) {
	t.Helper()
	if !r.OK {
		b, _ := json.MarshalIndent(r, "", "  ")
		t.Fatalf("%s: %s", when, b)
	}
}

func kinds() (os []guestos.Options) {
	for _, k := range []guest.Kind{guest.PV64, guest.PV32} {
		for _, p := range []guestos.P2MKind{guestos.Tree, guestos.Linear} {
			os = append(os, guestos.Options{Kind: k, P2M: p})
		}
	}
	return append(os, guestos.Options{Kind: guest.HVM}, guestos.Options{Kind: guest.PVH})
}

// TestRoundTrip moves guests of every kind to another host, stopped and while they run, twice in a row, and has them
// prove themselves on the way.
func TestRoundTrip(t *testing.T) {
	for _, o := range kinds() {
		for _, shape := range guestos.Shapes {
			o.Pages, o.VCPUs, o.Online, o.Seed = 3000, 3, 2, 42
			o.Workload, o.Fill = guestos.Workload{Shape: shape}, guestos.Fill{Zero: 0.2, Text: 0.3}
			t.Run(fmt.Sprintf("%v%s/%s", o.Kind, o.P2M, shape), func(t *testing.T) {
				s := build(t, o)
				for hop := range 3 {
					live := hop != 1
					if err := s.os.Step(300); err != nil {
						t.Fatal(err)
					}
					if live {
						s.os.Start()
					}
					stream := s.save(t, save.Options{Live: live, Verify: live})
					witness := s.os.Witness()
					passes(t, "source", s.os.CheckAgainst(witness))

					h := newHost(t, o.Pages, release, uint64(hop)+7)
					id := h.create(t, o.Kind, o.VCPUs, o.MaxPages())
					if _, err := load(t, h, id, stream); err != nil {
						t.Fatal(err)
					}
					os, err := guestos.Attach(h.hypervisor(t, id))
					if err != nil {
						t.Fatal(err)
					}
					passes(t, "target", os.CheckAgainst(witness))
					os.Resumed(false)
					s = &source{h, id, os}
					if err := s.os.Step(300); err != nil {
						t.Fatal(err)
					}
					passes(t, "target, running", s.os.CheckAgainst(witness))
				}
			})
		}
	}
}
