package x86

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// openTree is a PV guest with a P2M tree, all of whose pages were loaded.
func openTree(t *testing.T) (*fakePV, *PVSave) {
	t.Helper()
	g := newFakePV(guest.PV64)
	g.set(g.l.arch, fakePages)
	g.set(g.l.frameListList, uint64(g.list(g.mfns[12], 0, g.list(g.mfns[13], 0, g.leaf))))
	s, err := OpenSave(context.Background(), g, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(context.Background()); err != nil {
		t.Fatal(err)
	}
	loadAll(t, s)
	return g, s.(*PVSave)
}

func loadAll(t *testing.T, s Source) *xcstream.Batch {
	t.Helper()
	var pfns []guest.PFN
	for p := range guest.PFN(s.Frames()) {
		pfns = append(pfns, p)
	}
	b := new(xcstream.Batch)
	if err := s.Load(context.Background(), pfns, b); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// give makes m the frame of p in the guest's P2M.
func (g *fakePV) give(p guest.PFN, m guest.MFN) {
	g.l.putWord(g.page(g.leaf), int(p)*g.l.width, uint64(m))
}

// TestUnlogged changes what no log of dirty pages shows, and expects it to be found when the guest is suspended.
func TestUnlogged(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*fakePV)
		pfns   []uint64
		frames []guest.PFN // of the P2M, if the record has to be repeated
	}{
		{"nothing", func(*fakePV) {}, nil, nil},
		{"ballooned out", func(g *fakePV) { g.give(5, guest.InvalidMFN) }, []uint64{5}, nil},
		{"moved", func(g *fakePV) { g.give(6, g.frame(6)) }, []uint64{6}, nil},
		{"P2M elsewhere", func(g *fakePV) {
			copy(g.page(g.mfns[30]), g.page(g.leaf))
			g.list(g.mfns[13], 0, g.mfns[30])
		}, nil, []guest.PFN{30}},
		{"P2M grew", func(g *fakePV) {
			for i := range guest.PageSize {
				g.page(g.mfns[31])[i] = 0xFF
			}
			g.l.putWord(g.page(g.mfns[31]), 0, uint64(g.frame(512)))
			g.list(g.mfns[13], 0, g.leaf, g.mfns[31])
			g.set(g.l.arch, 600)
		}, []uint64{512}, []guest.PFN{10, 31}},
	} {
		t.Run(row.name, func(t *testing.T) {
			g, s := openTree(t)
			row.change(g)
			records, set, err := s.Suspended(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			var got []uint64
			for p, ok := set.Next(0); ok; p, ok = set.Next(p + 1) {
				got = append(got, p)
			}
			if !slices.Equal(got, row.pfns) {
				t.Errorf("to be sent again: %d, want %d", got, row.pfns)
			}
			switch {
			case row.frames == nil && len(records) != 0:
				t.Errorf("records %v", records)
			case row.frames != nil && (len(records) != 1 || !slices.Equal(records[0].Body.(xcstream.P2MFrames).Frames, row.frames)):
				t.Errorf("records %v, want the P2M in PFNs %d", records, row.frames)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	g, s := openTree(t)
	g.set(g.l.arch, fakePages-1)
	if _, _, err := s.Suspended(context.Background()); err == nil {
		t.Error("a P2M may become shorter")
	}
}

// TestMoved: a guest may move its linear P2M while it runs.
func TestMoved(t *testing.T) {
	ctx := context.Background()
	g := newFakePV(guest.PV64)
	g.set(g.l.arch, fakePages)
	g.mapLinear(0xFFFFC90000000000, g.l1(g.mfns[20], g.leaf))
	source, err := OpenSave(ctx, g, 1)
	if err != nil {
		t.Fatal(err)
	}
	s := source.(*PVSave)
	if _, err := s.Begin(ctx); err != nil {
		t.Fatal(err)
	}
	loadAll(t, s)

	copy(g.page(g.mfns[30]), g.page(g.leaf))
	g.leaf = g.mfns[30]
	g.give(5, g.frame(5))
	g.l1(g.mfns[20], g.leaf)
	g.set(g.l.generation, 2)
	if err := s.CheckRunning(ctx); err != nil {
		t.Fatal(err)
	}
	if m := s.p2m.mfn(5); m == g.mfns[5] {
		t.Errorf("PFN 5 is still in MFN %#x", m)
	}
	records, set, err := s.Suspended(ctx)
	if err != nil || set.Count() != 1 || !set.Test(5) {
		t.Errorf("%d pages to be sent again: %v", set.Count(), err)
	}
	if len(records) != 1 || !slices.Equal(records[0].Body.(xcstream.P2MFrames).Frames, []guest.PFN{30}) {
		t.Errorf("records %v, want the P2M in PFN 30", records)
	}

	g.set(g.l.generation, 3)
	g.set(g.l.p2mCR3, 1<<50)
	if err := s.CheckRunning(ctx); err == nil {
		t.Error("a P2M that is nowhere is good enough")
	}
}

// TestDeferred: what cannot be read in a running guest is put off, and in a suspended one an error that says all.
func TestDeferred(t *testing.T) {
	g, s := openTree(t)
	table := guest.GFN(g.mfns[8])
	g.types[table] = guest.L2Tab
	le.PutUint64(g.pages[table][9*8:], 0xBAD<<guest.PageShift|ptePresent)
	b := loadAll(t, s)
	if !slices.Equal(b.Deferred, []guest.PFN{8}) || b.Entries[8].Type() != guest.XTab || b.Entries[9].Type() != guest.NoTab {
		t.Errorf("deferred %d, PFN 8 is %v", b.Deferred, b.Entries[8].Type())
	}
	if _, set, err := s.Suspended(context.Background()); err != nil || !set.Test(8) {
		t.Errorf("PFN 8 is not to be sent again: %v", err)
	}
	err := s.Load(context.Background(), []guest.PFN{7, 8}, b)
	if err == nil || !errors.Is(err, errNotInP2M) {
		t.Fatal(err)
	}
	for _, part := range []string{"PFN 0x8 ", "l2tab", "slot 9 ", "PTE 0xbad001", "MFN 0xbad"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

// vanishing is a host on which a frame goes away between the question for its type and its mapping.
type vanishing struct {
	*fakePV
	gfn guest.GFN
}

func (h *vanishing) Map(ctx context.Context, id guest.DomID, gfns []guest.GFN, prot guest.Prot) (*guest.Mapping, error) {
	page := h.pages[h.gfn]
	delete(h.pages, h.gfn)
	defer func() { h.pages[h.gfn] = page }()
	return h.fakePV.Map(ctx, id, gfns, prot)
}

func TestVanished(t *testing.T) {
	g, s := openTree(t)
	s.host = &vanishing{g, guest.GFN(g.mfns[9])}
	if b := loadAll(t, s); !slices.Equal(b.Deferred, []guest.PFN{9}) || len(b.Pages) != 0 && b.Entries[9].Type() != guest.XTab {
		t.Errorf("deferred %d", b.Deferred)
	}
	s.suspended = true
	if err := s.Load(context.Background(), []guest.PFN{9}, new(xcstream.Batch)); !errors.Is(err, errRefused) {
		t.Error(err)
	}
}
