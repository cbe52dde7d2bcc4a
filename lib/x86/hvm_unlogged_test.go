package x86

import (
	"context"
	"slices"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// sparse is a host with one HVM domain, of which only the types of its pages and how many it has are asked.
type sparse struct {
	Host
	types map[guest.GFN]guest.PageType
	top   guest.GFN
	asked int
}

func (h *sparse) Info(context.Context, guest.DomID) (guest.Info, error) {
	return guest.Info{ID: 1, Kind: guest.PVH, TotPages: uint64(len(h.types))}, nil
}

func (h *sparse) MaxGFN(context.Context, guest.DomID) (guest.GFN, error) { return h.top, nil }

func (h *sparse) PageTypes(_ context.Context, _ guest.DomID, gfns []guest.GFN, types []guest.PageType) error {
	h.asked += len(gfns)
	for i, g := range gfns {
		t, ok := h.types[g]
		if !ok {
			t = guest.XTab
		}
		types[i] = t
	}
	return nil
}

// Map maps memory of nobody.
func (h *sparse) Map(_ context.Context, _ guest.DomID, gfns []guest.GFN, _ guest.Prot) (*guest.Mapping, error) {
	m := &guest.Mapping{}
	for range gfns {
		m.Pages = append(m.Pages, make([]byte, guest.PageSize))
	}
	return m, nil
}

// TestExchanged: a page that went while another came is found, though that one was sent since as it is, and the number of
// pages is what it was.
func TestExchanged(t *testing.T) {
	for _, blocks := range []guest.GFN{10, fewBlocks + 6} {
		h := &sparse{types: map[guest.GFN]guest.PageType{}, top: blocks*xcstream.MaxBatch - 1}
		for g := range h.top + 1 {
			h.types[g] = guest.NoTab
		}
		const out, in = 5000, 9000
		delete(h.types, in)
		ctx := context.Background()
		s, err := OpenSave(ctx, h, 1)
		if err != nil {
			t.Fatal(err)
		}
		load := func(pfns ...guest.PFN) {
			t.Helper()
			var b xcstream.Batch
			if err := s.Load(ctx, pfns, &b); err != nil {
				t.Fatal(err)
			}
		}
		for first := range blocks {
			var pfns []guest.PFN
			for i := range guest.PFN(xcstream.MaxBatch) {
				pfns = append(pfns, guest.PFN(first*xcstream.MaxBatch)+i)
			}
			load(pfns...)
		}
		h.types[in] = guest.NoTab
		delete(h.types, out)
		if err := s.CheckRunning(ctx); err != nil {
			t.Fatal(err)
		}
		load(in)
		_, set, err := s.Suspended(ctx)
		if err != nil || set.Count() != 1 || !set.Test(out) {
			t.Errorf("%d blocks: %d pages are to be sent again, %v", blocks, set.Count(), err)
		}
	}
}

// TestCameOrWent: pages that were ballooned in or out are found when the guest is suspended, and where nothing was, few
// types are asked for.
func TestCameOrWent(t *testing.T) {
	const ram, special, top = (fewBlocks+6)*xcstream.MaxBatch + 100, 1 << 20, 1<<20 + 7
	for _, row := range []struct {
		name   string
		change func(types map[guest.GFN]guest.PageType)
		want   []uint64
		few    bool
	}{
		{"nothing", func(map[guest.GFN]guest.PageType) {}, nil, true},
		{"out", func(ty map[guest.GFN]guest.PageType) { delete(ty, 5) }, []uint64{5}, false},
		{"in where RAM ends", func(ty map[guest.GFN]guest.PageType) { ty[ram] = guest.NoTab }, []uint64{ram}, false},
		{"in far away", func(ty map[guest.GFN]guest.PageType) { ty[1<<19] = guest.NoTab }, []uint64{1 << 19}, false},
		{"out and in", func(ty map[guest.GFN]guest.PageType) {
			delete(ty, 5)
			ty[ram+3] = guest.NoTab
		}, []uint64{5, ram + 3}, false},
	} {
		h := &sparse{types: map[guest.GFN]guest.PageType{}, top: top}
		for g := range guest.GFN(ram) {
			h.types[g] = guest.NoTab
		}
		for g := guest.GFN(special); g <= top; g++ {
			h.types[g] = guest.NoTab
		}
		ctx := context.Background()
		s, err := OpenSave(ctx, h, 1)
		if err != nil {
			t.Fatal(err)
		}
		hvm := s.(*HVMSave)
		hvm.loaded = true
		for g, ty := range h.types { // as Load would, without pages
			hvm.sent.set(guest.PFN(g), ty)
		}
		row.change(h.types)
		h.asked = 0
		_, set, err := s.Suspended(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for p, ok := set.Next(0); ok; p, ok = set.Next(p + 1) {
			got = append(got, p)
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: to be sent again: %d, want %d", row.name, got, row.want)
		}
		if row.few != (h.asked <= 2*xcstream.MaxBatch) {
			t.Errorf("%s: %d types were asked for", row.name, h.asked)
		}
	}
}
