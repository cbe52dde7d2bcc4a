package guestos_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"xenferry/lib/guest"
	"xenferry/lib/sim"
	"xenferry/lib/sim/guestos"
	"xenferry/lib/sim/simtest"
)

// request makes a call that must succeed.
func request[A any](t *testing.T, c *sim.Client, op string, req any) (a A) {
	t.Helper()
	if err := c.Call(context.Background(), op, req, &a); err != nil {
		t.Fatalf("%s: %v", op, err)
	}
	return a
}

// TestServer takes a guest of each kind through its life on a server.
func TestServer(t *testing.T) {
	ctx := context.Background()
	c := simtest.New(t, sim.Options{Software: guestos.Software{}})
	for _, kind := range []guest.Kind{guest.PV64, guest.PV32, guest.HVM, guest.PVH} {
		witness := filepath.Join(t.TempDir(), "witness")
		b := guestos.BuildRequest{Name: kind.String(), UUID: uuid.New(), Witness: witness}
		b.Options = guestos.Options{Kind: kind, Pages: 2000, VCPUs: 2, Online: 1, Workload: guestos.Workload{Shape: guestos.Sweep}}
		a := request[guestos.BuildAnswer](t, c, guestos.OpBuild, b)
		if a.Spec.Kind != kind || a.Spec.VCPUs != 2 || a.Spec.MaxPages < 2000 || a.Spec.UUID != b.UUID || a.Spec.Name != b.Name {
			t.Errorf("made %+v", a.Spec)
		}
		for d := (guestos.DomainRequest{ID: a.ID}); ; {
			if p := request[guestos.Picture](t, c, guestos.OpDump, d); p.Guest == nil {
				t.Fatalf("%v: no guest in %+v", kind, p)
			} else if p.Guest.Writes > 100 {
				break
			}
		}
		check := func(when, witness string, ok bool) *guestos.Report {
			t.Helper()
			r := request[guestos.Report](t, c, guestos.OpCheck, guestos.CheckRequest{ID: a.ID, Witness: witness})
			var text strings.Builder
			if err := r.WriteText(&text); err != nil || r.OK != ok {
				t.Errorf("%v %s: %s", kind, when, &text)
			}
			return &r
		}
		check("running", "", true)
		if err := c.Suspend(ctx, a.ID); err != nil {
			t.Fatal(err)
		}
		if i, err := c.Info(ctx, a.ID); err != nil || !i.Suspended() {
			t.Errorf("%v: %+v, %v", kind, i, err)
		}
		if r := check("suspended", witness, true); r.Compared == 0 || !r.Witness {
			t.Errorf("%v: compared %d pages", kind, r.Compared)
		}
		if err := c.Resume(ctx, a.ID); err != nil {
			t.Fatal(err)
		}
		check("resumed", witness, true)
		request[any](t, c, guestos.OpSuspend, guestos.DomainRequest{ID: a.ID})
		check("suspended again", witness, true)
		p := request[guestos.Picture](t, c, guestos.OpDump, guestos.DomainRequest{ID: a.ID})
		var text strings.Builder
		if err := p.WriteText(&text); err != nil || !strings.Contains(text.String(), "2 suspends, 0 restores") {
			t.Errorf("%v: dump: %s %v", kind, &text, err)
		}
		if n := p.Types["notab"]; n < 1500 || kind.PV() && p.Types["l1tab+pin"] == 0 {
			t.Errorf("%v: dump: types %v", kind, p.Types)
		}
		if kind.PV() != strings.HasPrefix(p.P2M, "linear") {
			t.Errorf("%v: dump: P2M %s", kind, p.P2M)
		}
		if online := slices.Collect(func(yield func(bool) bool) {
			for _, v := range p.VCPUs {
				if !yield(v.Online) {
					return
				}
			}
		}); !slices.Equal(online, []bool{true, false}) {
			t.Errorf("%v: dump: online %v", kind, online)
		}
		if err := c.Destroy(ctx, a.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// TestServerRefuses: what fails leaves nothing behind.
func TestServerRefuses(t *testing.T) {
	ctx := context.Background()
	c := simtest.New(t, sim.Options{Software: guestos.Software{}})
	small := guestos.BuildRequest{Options: guestos.Options{Kind: guest.PV64, Pages: 10, VCPUs: 1}}
	large := guestos.BuildRequest{Options: guestos.Options{Kind: guest.PV64, Pages: 1 << 24, VCPUs: 1}}
	for _, r := range []guestos.BuildRequest{small, large} {
		if err := c.Call(ctx, guestos.OpBuild, r, nil); err == nil {
			t.Errorf("%d pages: built", r.Options.Pages)
		}
	}
	if all, err := c.Domains(ctx); err != nil || len(all) != 0 {
		t.Errorf("left behind: %+v, %v", all, err)
	}
	id, err := c.Create(ctx, guest.Spec{Kind: guest.PVH, VCPUs: 1, MaxPages: 100})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Call(ctx, guestos.OpCheck, guestos.CheckRequest{ID: id}, nil); err == nil {
		t.Error("an empty domain proves itself")
	}
	request[guestos.Picture](t, c, guestos.OpDump, guestos.DomainRequest{ID: id})
	if err := c.Call(ctx, "guest-feed", guestos.DomainRequest{ID: id}, nil); err == nil {
		t.Error("an operation that is not there")
	}
}

// TestWitnessCannotBeWritten: the guest runs on.
func TestWitnessCannotBeWritten(t *testing.T) {
	ctx := context.Background()
	c := simtest.New(t, sim.Options{Software: guestos.Software{}})
	b := guestos.BuildRequest{Witness: filepath.Join(t.TempDir(), "no", "such", "folder")}
	b.Options = guestos.Options{Kind: guest.PV64, Pages: 2000, VCPUs: 1}
	a := request[guestos.BuildAnswer](t, c, guestos.OpBuild, b)
	if err := c.Suspend(ctx, a.ID); err == nil {
		t.Error("suspended")
	}
	if i, err := c.Info(ctx, a.ID); err != nil || i.Shutdown {
		t.Errorf("%+v, %v", i, err)
	}
	if r := request[guestos.Report](t, c, guestos.OpCheck, guestos.CheckRequest{ID: a.ID}); !r.OK || r.State != "running" {
		t.Errorf("%+v", r)
	}
}
