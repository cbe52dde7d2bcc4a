package sim_test

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"xenferry/lib/guest"
	"xenferry/lib/sim"
	"xenferry/lib/sim/machine"
	"xenferry/lib/sim/simtest"
)

// model is what a client knows of one domain.
type model struct {
	id    guest.DomID
	kind  guest.Kind
	pages map[guest.PFN]*modelPage
	log   map[guest.PFN]bool // nil while it is off
}

type modelPage struct {
	gfn   guest.GFN
	value byte
}

const (
	modelPFNs = 200 // PFNs are below
	modelMax  = 60  // pages that a domain may have
)

// script is a run of random operations on a few domains, each followed by a comparison with its model.
type script struct {
	*rapid.T
	c       *sim.Client
	domains []*model
}

// pfns draws distinct PFNs that the domain has, or has not, as there says.
func (s *script) pfns(d *model, there bool) []guest.PFN {
	var from []guest.PFN
	for p := range guest.PFN(modelPFNs) {
		if (d.pages[p] != nil) == there {
			from = append(from, p)
		}
	}
	if len(from) == 0 {
		return nil
	}
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, min(len(from), 20), rapid.ID[guest.PFN]).Draw(s.T, "pfns")
}

func (d *model) gfns(pfns []guest.PFN) []guest.GFN {
	gfns := make([]guest.GFN, len(pfns))
	for i, p := range pfns {
		gfns[i] = d.pages[p].gfn
	}
	return gfns
}

func (s *script) ok(err error) {
	if err != nil {
		s.Fatal(err)
	}
}

func (s *script) populate(d *model) {
	pfns := s.pfns(d, false)
	gfns := make([]guest.GFN, len(pfns))
	for i, p := range pfns {
		gfns[i] = guest.GFN(p)
	}
	if len(d.pages)+len(pfns) > modelMax {
		return
	}
	s.ok(s.c.Populate(s.Context(), d.id, gfns))
	for i, p := range pfns {
		d.pages[p] = &modelPage{gfn: gfns[i]}
	}
	s.write(d, pfns) // what they held before nobody knows
}

func (s *script) depopulate(d *model) {
	pfns := s.pfns(d, true)
	s.ok(s.c.Depopulate(s.Context(), d.id, d.gfns(pfns)))
	for _, p := range pfns {
		delete(d.pages, p)
		delete(d.log, p)
	}
}

func (s *script) write(d *model, pfns []guest.PFN) {
	m, err := s.c.Map(s.Context(), d.id, d.gfns(pfns), guest.ReadWrite)
	s.ok(err)
	for i, p := range pfns {
		d.pages[p].value = rapid.Byte().Draw(s.T, "value")
		m.Pages[i][p] = d.pages[p].value
		if d.log != nil {
			d.log[p] = true
		}
	}
	s.ok(m.Close())
}

func (s *script) readLog(d *model) {
	b := guest.NewBitmap(modelPFNs)
	clean := rapid.Bool().Draw(s.T, "clean")
	n, err := s.c.Dirty(s.Context(), d.id, modelPFNs, b, clean, false)
	if d.log == nil {
		if err == nil {
			s.Fatal("a log that is off was read")
		}
		return
	}
	s.ok(err)
	if n != b.Count() {
		s.Fatalf("the log tells %d frames and marks %d", n, b.Count())
	}
	for p := range guest.PFN(modelPFNs) {
		// A frame that went and came back may be told once more.
		if d.log[p] && !b.Test(uint64(p)) || !d.log[p] && b.Test(uint64(p)) && d.pages[p] != nil {
			s.Fatalf("page %d of domain %d: dirty %v, want %v", p, d.id, b.Test(uint64(p)), d.log[p])
		}
	}
	if clean {
		clear(d.log)
	}
}

func (s *script) step() {
	i := rapid.IntRange(0, len(s.domains)-1).Draw(s.T, "domain")
	d := s.domains[i]
	switch rapid.IntRange(0, 9).Draw(s.T, "op") {
	case 0, 1, 2:
		s.populate(d)
	case 3:
		s.depopulate(d)
	case 4, 5:
		s.write(d, s.pfns(d, true))
	case 6:
		s.ok(s.c.SetLogDirty(s.Context(), d.id, d.log == nil))
		if d.log == nil {
			d.log = map[guest.PFN]bool{}
		} else {
			d.log = nil
		}
	case 7, 8:
		s.readLog(d)
	case 9:
		s.ok(s.c.Destroy(s.Context(), d.id))
		s.domains[i] = s.create(d.kind)
	}
}

func (s *script) create(kind guest.Kind) *model {
	id, err := s.c.Create(s.Context(), guest.Spec{Kind: kind, VCPUs: 1, MaxPages: modelMax})
	s.ok(err)
	return &model{id: id, kind: kind, pages: map[guest.PFN]*modelPage{}}
}

// compare reads all that the host tells of a domain.
func (s *script) compare(d *model) {
	i, err := s.c.Info(s.Context(), d.id)
	s.ok(err)
	if i.TotPages != uint64(len(d.pages)) || i.LogDirty != (d.log != nil) || i.Kind != d.kind {
		s.Fatalf("domain %d is %+v, want %d pages, log %v", d.id, i, len(d.pages), d.log != nil)
	}
	pfns := slices.Sorted(maps.Keys(d.pages))
	gfns := d.gfns(pfns)
	m, err := s.c.Map(s.Context(), d.id, gfns, guest.ReadOnly)
	s.ok(err)
	m2p, err := s.c.M2P(s.Context())
	s.ok(err)
	types := make([]guest.PageType, len(gfns))
	s.ok(s.c.PageTypes(s.Context(), d.id, gfns, types))
	for i, p := range pfns {
		switch {
		case m.Pages[i][p] != d.pages[p].value:
			s.Fatalf("page %d of domain %d holds %d, want %d", p, d.id, m.Pages[i][p], d.pages[p].value)
		case types[i] != guest.NoTab:
			s.Fatalf("page %d of domain %d is %v", p, d.id, types[i])
		case d.kind.PV() && m2p.PFN(guest.MFN(gfns[i])) != p:
			s.Fatalf("M2P of page %d of domain %d is %d", p, d.id, m2p.PFN(guest.MFN(gfns[i])))
		}
	}
	s.ok(m.Close())
}

// Whatever clients do with the memory of several domains, each has what was put there, and its log tells what was.
func TestModel(t *testing.T) {
	for name, mode := range map[string]machine.LogMode{"auto": machine.LogAuto, "software": machine.LogSoftware} {
		t.Run(name, func(t *testing.T) {
			var o sim.Options
			o.Memory, o.Log = 2<<20, mode
			c := simtest.New(t, o)
			rapid.Check(t, func(t *rapid.T) {
				s := &script{T: t, c: c}
				for _, k := range []guest.Kind{guest.HVM, guest.PV64, guest.PV32} {
					s.domains = append(s.domains, s.create(k))
				}
				for range rapid.IntRange(1, 30).Draw(t, "steps") {
					s.step()
					for _, d := range s.domains {
						s.compare(d)
					}
				}
				for _, d := range s.domains {
					s.ok(c.Destroy(t.Context(), d.id))
				}
			})
		})
	}
}
