package x86

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"xenferry/lib/guest"
)

const compatMFN = 0x4242

// frames is a P2M and M2P of their own: PFN p is frame scatter(p).
type scattered struct{ mfns []guest.MFN }

func (s scattered) mfn(p guest.PFN) guest.MFN {
	if uint64(p) >= uint64(len(s.mfns)) {
		return guest.InvalidMFN
	}
	return s.mfns[p]
}

func (s scattered) pfn(m guest.MFN) (guest.PFN, error) {
	for p, n := range s.mfns {
		if n == m {
			return guest.PFN(p), nil
		}
	}
	return 0, errNotInP2M
}

// TestTableRoundTrip: what normalise makes of a table, localise turns back, whatever is in it and wherever frames are;
// only Xen's slots are gone.
func TestTableRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := rapid.SampledFrom([]*pvLayout{&pv64, &pv32}).Draw(t, "layout")
		level := rapid.IntRange(1, l.levels).Draw(t, "level")
		frames := scattered{rapid.SliceOfNDistinct(rapid.Map(rapid.Uint64Range(0, 1<<40-1), func(v uint64) guest.MFN { return guest.MFN(v) }), 1, 40, rapid.ID[guest.MFN]).Draw(t, "frames")}
		xen := level == l.levels || level == 2 && rapid.Bool().Draw(t, "maps the M2P")

		table := make([]byte, guest.PageSize)
		for slot := range entriesPerTable {
			pte := rapid.Uint64().Draw(t, "pte") &^ pteFrame
			if level > 1 {
				pte &^= ptePSE
			}
			m := rapid.SampledFrom(frames.mfns).Draw(t, "frame")
			le.PutUint64(table[slot*8:], pte|uint64(m)<<guest.PageShift)
		}
		if level == 2 && l.width == 4 && xen {
			le.PutUint64(table[xenFirstL2*8:], compatMFN<<guest.PageShift|1)
		}
		want := bytes.Clone(table)
		first, end := 0, 0
		switch {
		case l.width == 8 && level == 4:
			first, end = 256, 272
		case l.width == 4 && level == 3:
			first, end = 4, 512
		case l.width == 4 && level == 2 && guest.MFN(le.Uint64(table[428*8:])&pteFrame>>12) == compatMFN:
			first, end = 428, 512
		}
		clear(want[first*8 : end*8])

		got := make([]byte, guest.PageSize)
		if err := l.normalise(got, table, level, compatMFN, frames.pfn); err != nil {
			t.Fatal(err)
		}
		if err := references(got, func(p uint64) error {
			if p >= uint64(len(frames.mfns)) {
				t.Errorf("normalised table leads to PFN %#x", p)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := localise(got, frames.mfn); err != nil {
			t.Fatal(err)
		}
		for slot := range entriesPerTable {
			g, w := le.Uint64(got[slot*8:]), le.Uint64(want[slot*8:])
			if g != w {
				t.Errorf("slot %d: %#x became %#x", slot, w, g)
			}
		}
	})
}

func TestTableErrors(t *testing.T) {
	frames := scattered{[]guest.MFN{0x1000, 0x2000}}
	entry := func(slot int, pte uint64) []byte {
		table := make([]byte, guest.PageSize)
		le.PutUint64(table[slot*8:], pte)
		return table
	}
	for _, row := range []struct {
		name  string
		l     *pvLayout
		level int
		table []byte
		slot  int // -1 for no error
		err   error
	}{
		{"frame of another", &pv64, 1, entry(7, 0x3000<<12|1), 7, errNotInP2M},
		{"not present", &pv64, 1, entry(7, 0x3000<<12), -1, nil},
		{"large page", &pv64, 2, entry(9, 0x1000<<12|ptePSE|1), 9, errPSE},
		{"large page, 32-bit", &pv32, 3, entry(2, 0x1000<<12|ptePSE|1), 2, errPSE},
		{"PAT at level 1", &pv64, 1, entry(9, 0x1000<<12|ptePSE|1), -1, nil},
		{"Xen's slot", &pv64, 4, entry(271, 0x3000<<12|1), -1, nil},
		{"behind Xen's slots", &pv64, 4, entry(272, 0x3000<<12|1), 272, errNotInP2M},
		{"Xen's L2", &pv32, 2, entry(428, compatMFN<<12|1), -1, nil},
		{"another L2", &pv32, 2, entry(429, 0x3000<<12|1), 429, errNotInP2M},
		{"L4 of a 32-bit guest", &pv32, 4, entry(0, 0), 0, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := row.l.normalise(make([]byte, guest.PageSize), row.table, row.level, compatMFN, frames.pfn)
			var at *tableError
			switch {
			case row.slot < 0:
				if err != nil {
					t.Error(err)
				}
			case !errors.As(err, &at) || at.slot != row.slot || row.err != nil && !errors.Is(err, row.err):
				t.Errorf("error %v, want one at slot %d: %v", err, row.slot, row.err)
			}
		})
	}
	if err := localise(entry(3, 2<<12|1), frames.mfn); err == nil {
		t.Error("localise takes a PFN without a frame")
	}
}

// TestCR3 holds the two forms against words written out by hand.
func TestCR3(t *testing.T) {
	for _, row := range []struct {
		l          *pvLayout
		frame, cr3 uint64
	}{
		{&pv64, 0x123456789, 0x123456789000},
		{&pv32, 0x12345, 0x12345000},
		{&pv32, 0xABC12345, 0x12345ABC},
		{&pv32, 0xFFFFFFFE, 0xFFFFEFFF},
	} {
		if got := row.l.makeCR3(row.frame); got != row.cr3 {
			t.Errorf("%d bits: frame %#x makes cr3 %#x, want %#x", 8*row.l.width, row.frame, got, row.cr3)
		}
		if got := row.l.cr3Frame(row.cr3); got != row.frame {
			t.Errorf("%d bits: cr3 %#x is frame %#x, want %#x", 8*row.l.width, row.cr3, got, row.frame)
		}
	}
}

func TestTypeMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m typeMap
		want := map[guest.PFN]guest.PageType{}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			frames := rapid.Uint64Range(1, 60).Draw(t, "frames")
			m.grow(frames)
			p := guest.PFN(rapid.Uint64Range(0, frames-1).Draw(t, "pfn"))
			want[p] = guest.PageType(rapid.IntRange(0, 15).Draw(t, "type"))
			m.set(p, want[p])
		}
		for p := range guest.PFN(200) {
			w, ok := want[p]
			if !ok {
				w = guest.XTab
			}
			if got := m.get(p); got != w {
				t.Fatalf("PFN %d is %v, want %v", p, got, w)
			}
		}
	})
}
