// Package hosttest holds any host.Host to what its users rely on, so that the simulated host and Xen are one to them.
package hosttest

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/google/uuid"

	"xenferry/lib/guest"
	"xenferry/lib/host"
)

// Lack is something that a host does not do: the suite then wants no more than the rest.
type Lack string

// What Xen lacks of the simulated host, always or on some machines.
const (
	LogOfMappings Lack = "the log of dirty pages tells what a toolstack wrote through a mapping"
	Refusals      Lack = "a frame in use cannot be taken back, a refused pin leaves no types, and nothing may follow an HVM context's END"
	PV32          Lack = "32-bit PV domains"
	LogOfPV       Lack = "a log of dirty pages of PV domains, which takes shadow paging"
	Processor     Lack = "a processor with XSAVE, AVX and RDTSCP"
)

// Run runs the suite. open opens a host with some hundred free pages, for one test; it may be one host for all.
// The suite makes domains of its own and destroys them. None of them ever runs.
func Run(t *testing.T, open func(t *testing.T) host.Host, lacks ...Lack) {
	for _, c := range []struct {
		name string
		run  func(s *suite)
	}{
		{"missing domain", missingDomain},
		{"domains", domains},
		{"populate HVM", populateHVM},
		{"populate PV", populatePV},
		{"limit", limit},
		{"mapping", mapping},
		{"log-dirty", logDirty},
		{"log-dirty of two", logDirtyOfTwo},
		{"address size", addressSize},
		{"pin PV64", func(s *suite) { pin(s, guest.PV64) }},
		{"pin PV32", func(s *suite) { pin(s, guest.PV32) }},
		{"pin what is not fit", pinUnfit},
		{"vCPU PV64", func(s *suite) { vcpuContext(s, guest.PV64) }},
		{"vCPU PV32", func(s *suite) { vcpuContext(s, guest.PV32) }},
		{"vCPU state", vcpuState},
		{"HVM parameters", hvmParams},
		{"HVM context", hvmContext},
		{"TSC", tsc},
		{"CPU policy", cpuPolicy},
		{"grants", grants},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(&suite{T: t, Host: open(t), ctx: t.Context(), lacks: lacks})
		})
	}
}

// suite is one test and its host.
type suite struct {
	*testing.T
	host.Host
	ctx   context.Context
	lacks []Lack
}

// has reports whether the host does what l names.
func (s *suite) has(l Lack) bool { return !slices.Contains(s.lacks, l) }

// need skips the test on a host that lacks l.
func (s *suite) need(l Lack) {
	s.Helper()
	if !s.has(l) {
		s.Skipf("this host lacks: %s", l)
	}
}

// create makes a domain that ends with the test.
func (s *suite) create(kind guest.Kind, vcpus uint32, pages uint64) guest.DomID {
	s.Helper()
	id, err := s.Create(s.ctx, guest.Spec{Name: "hosttest", UUID: uuid.New(), Kind: kind, VCPUs: vcpus, MaxPages: pages})
	s.ok(err)
	s.Cleanup(func() { _ = s.Destroy(context.Background(), id) })
	return id
}

func (s *suite) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// refused wants an error, which must match want unless that is nil.
func (s *suite) refused(err, want error, what string) {
	s.Helper()
	switch {
	case err == nil:
		s.Errorf("%s: not refused", what)
	case want != nil && !errors.Is(err, want):
		s.Errorf("%s: %v; want %v", what, err, want)
	}
}

func (s *suite) info(id guest.DomID) guest.Info {
	s.Helper()
	i, err := s.Info(s.ctx, id)
	s.ok(err)
	return i
}

// populate gives a domain pages at PFNs from first on, and returns them as the GFNs they have.
func (s *suite) populate(id guest.DomID, first guest.PFN, n int) []guest.GFN {
	s.Helper()
	gfns := make([]guest.GFN, n)
	for i := range gfns {
		gfns[i] = guest.GFN(first) + guest.GFN(i)
	}
	s.ok(s.Populate(s.ctx, id, gfns))
	return gfns
}

// write changes pages through a mapping of all of them.
func (s *suite) write(id guest.DomID, gfns []guest.GFN, f func(i int, page []byte)) {
	s.Helper()
	m, err := s.Map(s.ctx, id, gfns, guest.ReadWrite)
	s.ok(err)
	if i, err := m.Err(); err != nil {
		s.Fatalf("map frame %d: %v", i, err)
	}
	for i, p := range m.Pages {
		f(i, p)
	}
	s.ok(m.Close())
}

func (s *suite) types(id guest.DomID, gfns ...guest.GFN) []guest.PageType {
	s.Helper()
	types := make([]guest.PageType, len(gfns))
	s.ok(s.PageTypes(s.ctx, id, gfns, types))
	return types
}

func (s *suite) wantTypes(id guest.DomID, want []guest.PageType, gfns ...guest.GFN) {
	s.Helper()
	for i, got := range s.types(id, gfns...) {
		if got != want[i] {
			s.Errorf("frame %#x is %v, want %v", uint64(gfns[i]), got, want[i])
		}
	}
}

func missingDomain(s *suite) {
	id := s.create(guest.HVM, 1, 16)
	s.ok(s.Destroy(s.ctx, id))
	_, info := s.Info(s.ctx, id)
	_, maxGFN := s.MaxGFN(s.ctx, id)
	_, mapping := s.Map(s.ctx, id, []guest.GFN{0}, guest.ReadOnly)
	_, dirty := s.Dirty(s.ctx, id, 64, guest.NewBitmap(64), false, false)
	_, bits := s.AddressSize(s.ctx, id)
	_, context := s.VCPUContext(s.ctx, id, 0)
	_, param := s.HVMParam(s.ctx, id, 1)
	for what, err := range map[string]error{
		"Info": info, "MaxGFN": maxGFN, "Map": mapping, "Dirty": dirty, "AddressSize": bits, "VCPUContext": context, "HVMParam": param,
		"PageTypes":   s.PageTypes(s.ctx, id, []guest.GFN{0}, make([]guest.PageType, 1)),
		"Populate":    s.Populate(s.ctx, id, []guest.GFN{0}),
		"Depopulate":  s.Depopulate(s.ctx, id, []guest.GFN{0}),
		"SetLogDirty": s.SetLogDirty(s.ctx, id, true),
		"Pin":         s.Pin(s.ctx, id, []guest.PinOp{{MFN: 1, Level: 1}}),
		"SetTSC":      s.SetTSC(s.ctx, id, guest.TSC{}),
		"Destroy":     s.Destroy(s.ctx, id),
		"Pause":       s.Pause(s.ctx, id),
		"Unpause":     s.Unpause(s.ctx, id),
		"Suspend":     s.Suspend(s.ctx, id),
		"Resume":      s.Resume(s.ctx, id),
	} {
		s.refused(err, fs.ErrNotExist, what)
	}
}

func domains(s *suite) {
	a, b := s.create(guest.PV64, 3, 100), s.create(guest.HVM, 1, 50)
	i := s.info(a)
	if i.ID != a || i.Kind != guest.PV64 || i.MaxVCPU != 2 || i.MaxPages != 100 || i.TotPages != 0 || i.Name != "hosttest" {
		s.Errorf("info of a new domain: %+v", i)
	}
	if !i.Paused || i.Shutdown || i.Dying || i.EverUnpaused || i.LogDirty {
		s.Errorf("a new domain is not just paused: %+v", i)
	}
	if i.StoreEvtchn == 0 || i.ConsoleEvtchn == 0 || i.StoreEvtchn == i.ConsoleEvtchn {
		s.Errorf("event channels of a new domain: %d and %d", i.StoreEvtchn, i.ConsoleEvtchn)
	}
	s.ok(s.Pause(s.ctx, a))
	if s.ok(s.Unpause(s.ctx, a)); !s.info(a).Paused {
		s.Error("one unpause undid two pauses")
	}
	all, err := s.Domains(s.ctx)
	s.ok(err)
	found := 0
	for _, i := range all {
		if i.ID == a || i.ID == b {
			found++
		}
	}
	if found != 2 {
		s.Errorf("%d of 2 domains are listed", found)
	}
	s.refused(s.Resume(s.ctx, a), nil, "resume a domain that is not suspended")
	_, err = s.Create(s.ctx, guest.Spec{Kind: guest.PV64, MaxPages: 10})
	s.refused(err, nil, "a domain without vCPUs")
}

func populateHVM(s *suite) {
	id := s.create(guest.HVM, 1, 100)
	low := s.populate(id, 0, 3)
	high := s.populate(id, 1<<20, 2)
	if low[2] != 2 || high[1] != 1<<20+1 {
		s.Errorf("GFNs of an HVM domain changed: %#x, %#x", low, high)
	}
	if n := s.info(id).TotPages; n != 5 {
		s.Errorf("%d pages after populating 5", n)
	}
	top, err := s.MaxGFN(s.ctx, id)
	if s.ok(err); top != 1<<20+1 {
		s.Errorf("highest GFN is %#x", uint64(top))
	}
	no, x := guest.NoTab, guest.XTab
	s.wantTypes(id, []guest.PageType{no, no, x, no, x, x}, 0, 2, 3, 1<<20, 1<<30, guest.InvalidGFN)
	s.ok(s.Depopulate(s.ctx, id, []guest.GFN{1}))
	s.wantTypes(id, []guest.PageType{no, x, no}, 0, 1, 2)
	s.refused(s.Depopulate(s.ctx, id, []guest.GFN{1}), nil, "depopulate a hole")
	s.populate(id, 1, 1)
	s.wantTypes(id, []guest.PageType{no}, 1)
}

func populatePV(s *suite) {
	a, b := s.create(guest.PV64, 1, 100), s.create(guest.PV64, 1, 100)
	mfns := s.populate(a, 10, 20)
	m2p, err := s.M2P(s.ctx)
	s.ok(err)
	seen := map[guest.GFN]bool{}
	for i, f := range mfns {
		if seen[f] {
			s.Errorf("frame %#x was handed out twice", uint64(f))
		}
		seen[f] = true
		if p := m2p.PFN(guest.MFN(f)); p != guest.PFN(10+i) {
			s.Errorf("M2P of frame %#x is %#x, want %#x", uint64(f), uint64(p), 10+i)
		}
	}
	s.wantTypes(a, []guest.PageType{guest.NoTab, guest.XTab}, mfns[0], guest.InvalidGFN)
	s.wantTypes(b, []guest.PageType{guest.XTab}, mfns[0])
	s.ok(s.Depopulate(s.ctx, a, mfns[:1]))
	s.wantTypes(a, []guest.PageType{guest.XTab}, mfns[0])
	if n := s.info(a).TotPages; n != 19 {
		s.Errorf("%d pages are left of 20 after taking one", n)
	}
	s.refused(s.Depopulate(s.ctx, b, mfns[1:2]), nil, "depopulate another domain's frame")

	shared := guest.GFN(s.info(a).SharedInfo)
	s.wantTypes(a, []guest.PageType{guest.XTab}, shared)
	s.write(a, []guest.GFN{shared}, func(_ int, p []byte) { p[0] = 1 })
	if s.has(Refusals) {
		s.refused(s.Depopulate(s.ctx, a, []guest.GFN{shared}), nil, "depopulate shared_info")
	}
}

func limit(s *suite) {
	for _, kind := range []guest.Kind{guest.PV64, guest.HVM} {
		id := s.create(kind, 1, 4)
		s.refused(s.Populate(s.ctx, id, []guest.GFN{0, 1, 2, 3, 4}), nil, "populate 5 pages of 4")
		if n := s.info(id).TotPages; n > 4 {
			s.Errorf("%v: %d pages of at most 4", kind, n)
		}
	}
}

func mapping(s *suite) {
	for _, kind := range []guest.Kind{guest.PV64, guest.HVM} {
		id, other := s.create(kind, 1, 2000), s.create(kind, 1, 10)
		gfns := s.populate(id, 0, 1500) // more than Xen takes at once in some operations
		s.write(id, gfns, func(i int, p []byte) { p[0], p[4095] = byte(i), byte(i>>8) })
		ask := append([]guest.GFN{gfns[700], guest.InvalidGFN, gfns[1], gfns[700]}, s.populate(other, 5000, 1)[0])
		m, err := s.Map(s.ctx, id, ask, guest.ReadOnly)
		s.ok(err)
		for i, want := range []int{700, -1, 1, 700, -1} {
			p := m.Pages[i]
			switch {
			case len(m.Errs) != len(ask) || (want < 0) != (p == nil) || (want < 0) != (m.Errs[i] != nil):
				s.Errorf("%v: mapping of frame %d: %d octets, errors %v", kind, i, len(p), m.Errs)
			case want >= 0 && (len(p) != guest.PageSize || p[0] != byte(want) || p[4095] != byte(want>>8)):
				s.Errorf("%v: page %d does not hold what was written to it", kind, want)
			}
		}
		s.ok(m.Close())
		s.ok(m.Close())
		m, err = s.Map(s.ctx, id, gfns, guest.ReadOnly)
		s.ok(err)
		for i, p := range m.Pages {
			if p[0] != byte(i) || p[4095] != byte(i>>8) {
				s.Fatalf("%v: page %d does not hold what was written to it", kind, i)
			}
		}
		s.ok(m.Leave())
		s.ok(m.Close())
		s.ok(s.Destroy(s.ctx, id)) // a domain with a page that is still mapped stays
		if i, err := s.Info(s.ctx, id); !errors.Is(err, fs.ErrNotExist) {
			s.Errorf("%v: destroyed with a mapping that was left: %+v, %v", kind, i, err)
		}
	}
}
