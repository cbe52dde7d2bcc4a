package x86_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"xenferry/lib/guest"
	"xenferry/lib/restore"
	"xenferry/lib/save"
	"xenferry/lib/sim"
	"xenferry/lib/sim/guestos"
	"xenferry/lib/sim/machine"
	"xenferry/lib/sim/simtest"
	"xenferry/lib/x86"
	"xenferry/lib/xcstream"
)

var (
	_ save.Guest    = x86.Source(nil)
	_ restore.Guest = x86.Target(nil)
)

var (
	xen414 = guest.Release{Major: 4, Minor: 14}
	xen417 = guest.Release{Major: 4, Minor: 17}
	xen422 = guest.Release{Major: 4, Minor: 22}
)

// domain is a domain on a simulated host of its own.
type domain struct {
	server *sim.Server
	host   *sim.Client
	id     guest.DomID
	os     *guestos.Kernel // nil until it is built or found
}

// newDomain makes a domain for a guest.
func newDomain(t testing.TB, o guestos.Options, release guest.Release, seed uint64) *domain {
	t.Helper()
	server, host := simtest.NewServer(t, sim.Options{Options: machine.Options{
		Memory: (o.Pages + 4096) * guest.PageSize, Release: release, Seed: seed, Scrub: true,
	}})
	spec := guest.Spec{Kind: o.Kind, VCPUs: o.VCPUs, MaxPages: o.MaxPages(), UUID: uuid.UUID{7}}
	id, err := host.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return &domain{server: server, host: host, id: id}
}

// hypervisor is what the domain's guest sees.
func (d *domain) hypervisor(t testing.TB) guestos.Hypervisor {
	t.Helper()
	v, err := d.server.View(d.id)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// build makes a guest.
func build(t testing.TB, o guestos.Options, release guest.Release) *domain {
	t.Helper()
	d := newDomain(t, o, release, o.Seed)
	os, err := guestos.Build(d.hypervisor(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(os.Stop)
	d.os = os
	return d
}

// attach finds the guest of a restored domain.
func (d *domain) attach(t testing.TB) {
	t.Helper()
	os, err := guestos.Attach(d.hypervisor(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(os.Stop)
	d.os = os
}

// control suspends a guest, and does something after that.
type control struct {
	*domain
	suspend func(context.Context) error
	then    func()
}

func (c control) Suspend(ctx context.Context) error {
	suspend := c.suspend
	if suspend == nil {
		suspend = c.os.Suspend
	}
	if err := suspend(ctx); err != nil {
		return err
	}
	if c.then != nil {
		c.then()
	}
	return c.host.Shutdown(ctx, c.id, guest.ShutdownSuspend)
}

func (c control) Commit(context.Context) error { return nil }

// quiet is an Observer of both directions.
type quiet struct{ t testing.TB }

func (quiet) Begin(save.Round)        {}
func (quiet) Sent(save.Progress)      {}
func (quiet) Done()                   {}
func (quiet) Suspended(time.Duration) {}
func (quiet) Received(int, int)       {}
func (quiet) Taken()                  {}
func (q quiet) Differ(p []guest.PFN)  { q.t.Errorf("VERIFY: %d pages differ, first %#x", len(p), p[0]) }

// save writes the domain's stream.
func (c control) save(t testing.TB, o save.Options) ([]byte, error) {
	t.Helper()
	g, err := x86.OpenSave(t.Context(), c.host, c.id)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	o.Version = xcstream.Version3
	var out bytes.Buffer
	err = save.Run(t.Context(), g, &out, o, c, quiet{t})
	return out.Bytes(), err
}

// mustSave is save that may not fail.
func (c control) mustSave(t testing.TB, o save.Options) []byte {
	t.Helper()
	stream, err := c.save(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// load restores a stream into the domain, and returns what is behind it.
func (d *domain) load(t testing.TB, stream []byte) ([]byte, error) {
	t.Helper()
	open := func(ctx context.Context, o restore.Opening) (restore.Guest, error) {
		return x86.OpenRestore(ctx, d.host, d.id, o.Domain)
	}
	in := bytes.NewReader(stream)
	_, err := restore.Run(t.Context(), in, restore.Options{}, open, quiet{t})
	return stream[len(stream)-in.Len():], err
}

func (d *domain) mustLoad(t testing.TB, stream []byte) {
	t.Helper()
	if rest, err := d.load(t, stream); err != nil || len(rest) > 0 {
		t.Fatalf("restore: %v, %d octets left", err, len(rest))
	}
}

// totPages is how many frames the domain has.
func (d *domain) totPages(t testing.TB) uint64 {
	t.Helper()
	info, err := d.host.Info(t.Context(), d.id)
	if err != nil {
		t.Fatal(err)
	}
	return info.TotPages
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
	os = append(os, guestos.Options{Kind: guest.HVM}, guestos.Options{Kind: guest.PVH})
	for i := range os {
		os[i].Pages, os[i].VCPUs, os[i].Online, os[i].Seed = 1200, 3, 2, 42
		os[i].Fill = guestos.Fill{Zero: 0.2, Text: 0.3}
	}
	return os
}

// TestRoundTrip moves guests of every kind from host to host, while they run and stopped, and has them prove
// themselves on the way. One shape of workload goes all the way, the others one hop.
func TestRoundTrip(t *testing.T) {
	for _, o := range kinds() {
		for _, shape := range guestos.Shapes {
			if !o.Kind.PV() && shape != guestos.Uniform && shape != guestos.Balloon {
				continue // what an HVM guest does to its page tables is its own matter, and it has a million PFNs
			}
			o.Workload = guestos.Workload{Shape: shape, Rate: 5000}
			t.Run(fmt.Sprintf("%v%s/%s", o.Kind, o.P2M, shape), func(t *testing.T) {
				d := build(t, o, xen414)
				way := []guest.Release{xen417, xen417, xen422}
				if shape != guestos.Balloon {
					way = way[:1]
				}
				for hop, release := range way {
					live := hop != 1
					if err := d.os.Step(100); err != nil {
						t.Fatal(err)
					}
					if live {
						d.os.Start()
					}
					stream := control{domain: d}.mustSave(t, save.Options{Live: live, Verify: live})
					witness := d.os.Witness()
					passes(t, "source", d.os.CheckAgainst(witness))

					to := newDomain(t, o, release, uint64(hop))
					to.mustLoad(t, stream)
					if got, want := to.totPages(t), d.totPages(t); got != want {
						t.Errorf("the target has %d pages, the source %d", got, want)
					}
					to.attach(t)
					passes(t, "target", to.os.CheckAgainst(witness))
					to.os.Resumed(false)
					if err := to.os.Step(100); err != nil {
						t.Fatal(err)
					}
					passes(t, "target, running", to.os.CheckAgainst(witness))
					d = to
				}
			})
		}
	}
}

// TestNarrow restores a 32-bit guest into a domain made as Xen makes PV domains, with words of 64 bits.
func TestNarrow(t *testing.T) {
	o := kinds()[3]
	d := build(t, o, xen417)
	stream := control{domain: d}.mustSave(t, save.Options{})
	witness := d.os.Witness()
	o.Kind = guest.PV64
	to := newDomain(t, o, xen417, 1)
	to.mustLoad(t, stream)
	to.attach(t)
	passes(t, "target", to.os.CheckAgainst(witness))
}

// TestUnrunAgain saves a restored domain that never ran. Of a linear P2M the restored shared_info must tell; a tree is
// its guest's to build anew.
func TestUnrunAgain(t *testing.T) {
	for _, o := range kinds() {
		t.Run(fmt.Sprintf("%v%s", o.Kind, o.P2M), func(t *testing.T) {
			d := build(t, o, xen417)
			first := control{domain: d}.mustSave(t, save.Options{})
			witness := d.os.Witness()

			to := newDomain(t, o, xen417, 1)
			to.mustLoad(t, first)
			c := control{domain: to, suspend: guestos.NewPassive(to.hypervisor(t)).Suspend}
			if o.P2M == guestos.Tree {
				if _, err := c.save(t, save.Options{}); err == nil {
					t.Error("a P2M tree that nobody built was found")
				}
				to.attach(t)
				if err := to.os.Suspend(t.Context()); err != nil {
					t.Fatal(err)
				}
				c.suspend = func(context.Context) error { return nil }
			}
			second := c.mustSave(t, save.Options{})
			if o.P2M != guestos.Tree {
				compareStreams(t, first, second)
			}
			again := newDomain(t, o, xen417, 2)
			again.mustLoad(t, second)
			again.attach(t)
			passes(t, "second target", again.os.CheckAgainst(witness))
		})
	}
}

// TestBadTableInTheEnd: a guest that stops without unmapping shared_info, which is no page of its own, cannot be saved.
// Stock Xen leaves out the page table without a word.
func TestBadTableInTheEnd(t *testing.T) {
	for _, live := range []bool{false, true} {
		d := build(t, kinds()[0], xen417)
		c := control{domain: d, suspend: func(context.Context) error { return nil }}
		_, err := c.save(t, save.Options{Live: live})
		if err == nil || !strings.Contains(err.Error(), "cannot be saved: slot") {
			t.Errorf("live %v: %v", live, err)
		}
	}
}

// TestNested finds the domains that may run virtual machines of their own, on releases that tell it in either way.
func TestNested(t *testing.T) {
	for _, release := range []guest.Release{xen414, xen417, xen422} {
		for _, nested := range []bool{false, true} {
			for _, kind := range []guest.Kind{guest.HVM, guest.PVH} {
				d := build(t, guestos.Options{Kind: kind, Pages: 600, VCPUs: 1, Seed: 1, Nested: nested}, release)
				if got, err := x86.Nested(t.Context(), d.host, d.id); got != nested || err != nil {
					t.Errorf("Xen %v, %v: %v, %v; want %v", release, kind, got, err, nested)
				}
			}
		}
	}
}
