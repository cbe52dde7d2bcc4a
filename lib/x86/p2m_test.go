package x86

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"xenferry/lib/guest"
)

// fakePV is a PV guest with few pages and a P2M that speaks of many: where memory is not there, one leaf full of invalid
// entries is used again and again.
type fakePV struct {
	*fakeHost
	l       *pvLayout
	mfns    []guest.MFN // of PFN 0 to its length
	leaf    guest.MFN   // describes those
	missing guest.MFN   // a leaf of nothing
}

const fakePages = 64

func newFakePV(kind guest.Kind) *fakePV {
	g := &fakePV{fakeHost: newFakeHost(kind, 4096, 1000), l: &pv64}
	if kind == guest.PV32 {
		g.l = &pv32
	}
	for p := range guest.PFN(fakePages) {
		g.mfns = append(g.mfns, g.frame(p))
	}
	g.leaf, g.missing = g.mfns[10], g.mfns[11]
	for _, m := range []guest.MFN{g.leaf, g.missing} {
		page := g.page(m)
		for i := range page {
			page[i] = 0xFF
		}
	}
	for p, m := range g.mfns {
		g.l.putWord(g.page(g.leaf), p*g.l.width, uint64(m))
	}
	return g
}

func (g *fakePV) page(m guest.MFN) []byte { return g.pages[guest.GFN(m)] }

// list makes the page of frame m an array of MFNs: head, and then tail to its end.
func (g *fakePV) list(m, tail guest.MFN, head ...guest.MFN) guest.MFN {
	for i := range int(g.l.fpp) {
		v := tail
		if i < len(head) {
			v = head[i]
		}
		g.l.putWord(g.page(m), i*g.l.width, uint64(v))
	}
	return m
}

// l1 makes frame m a level 1 table of leaves: head, and then missing ones.
func (g *fakePV) l1(m guest.MFN, head ...guest.MFN) guest.MFN {
	for i := range entriesPerTable {
		leaf := g.missing
		if i < len(head) {
			leaf = head[i]
		}
		le.PutUint64(g.page(m)[i*8:], uint64(leaf)<<guest.PageShift|1)
	}
	return m
}

// mapLinear maps level 1 tables from addr on, which is a multiple of 2 MiB, and points shared_info there.
func (g *fakePV) mapLinear(addr uint64, l1s ...guest.MFN) {
	next := 40 // frames for tables
	table := func(up guest.MFN, slot uint64) guest.MFN {
		at := g.page(up)[slot*8:]
		if pte := le.Uint64(at); pte != 0 {
			return guest.MFN(pte >> guest.PageShift)
		}
		m := g.mfns[next]
		next++
		le.PutUint64(at, uint64(m)<<guest.PageShift|1)
		return m
	}
	root := g.mfns[39]
	for i, l1 := range l1s {
		va := addr + uint64(i)<<21
		at := root
		for level := g.l.levels; level > 2; level-- {
			at = table(at, va>>(12+9*(level-1))&511)
		}
		le.PutUint64(g.page(at)[va>>21&511*8:], uint64(l1)<<guest.PageShift|1)
	}
	g.set(g.l.p2mCR3, g.l.makeCR3(uint64(root)))
	g.set(g.l.p2mAddr, addr)
}

// set writes a word of shared_info.
func (g *fakePV) set(off int, v uint64) { g.l.putWord(g.pages[1], off, v) }

func (g *fakePV) walk(floor guest.PFN) (*p2m, error) {
	w := &walker{l: g.l, host: g, id: 1, m2p: g.m2p, shared: g.pages[1], floor: floor}
	return w.walk(context.Background())
}

// TestTrim cuts off the ends of P2Ms that say nothing.
func TestTrim(t *testing.T) {
	for _, kind := range []guest.Kind{guest.PV64, guest.PV32} {
		l := newFakePV(kind).l
		perMid, perL1 := l.fpp*l.fpp, 512*l.fpp
		base := uint64(0xFFFFC90000000000)
		if kind == guest.PV32 {
			base = 0x80000000
		}
		tree := func(n uint64, mids ...int) func(*fakePV) {
			return func(g *fakePV) {
				var list []guest.MFN
				for _, m := range mids { // 0 has the leaf, others only missing ones
					mid := g.mfns[20+m]
					if g.list(mid, g.missing); m == 0 {
						g.list(mid, g.missing, g.leaf)
					}
					list = append(list, mid)
				}
				g.set(g.l.arch, n)
				g.set(g.l.frameListList, uint64(g.list(g.mfns[12], 0, list...)))
			}
		}
		linear := func(n, addr uint64, l1s ...int) func(*fakePV) {
			return func(g *fakePV) {
				var list []guest.MFN
				for _, m := range l1s {
					l1 := g.mfns[20+m]
					if g.l1(l1); m == 0 {
						g.l1(l1, g.leaf)
					}
					list = append(list, l1)
				}
				g.set(g.l.arch, n)
				g.mapLinear(addr, list...)
			}
		}
		for _, row := range []struct {
			name  string
			make  func(*fakePV)
			floor guest.PFN
			last  uint64
		}{
			{"tree, all there", tree(fakePages, 0), 0, fakePages - 1},
			{"tree, nothing to cut", tree(2*perMid, 0, 1), 0, 2*perMid - 1},
			{"tree, one of a run is kept", tree(5*perMid-7, 0, 1, 1, 1, 1), 0, 2*perMid - 1},
			{"tree, not below the floor", tree(5*perMid, 0, 1, 1, 1, 1), guest.PFN(3 * perMid), 3 * perMid},
			{"tree, all the same", tree(3*perMid, 0, 0, 0), 0, perMid - 1},
			{"linear, all there", linear(fakePages, base, 0), 0, fakePages - 1},
			{"linear, nothing to cut", linear(2*perL1, base, 0, 1), 0, 2*perL1 - 1},
			{"linear, all of a run goes", linear(4*perL1-5, base, 0, 1, 1, 1), 0, perL1 - 1},
			{"linear, not below the floor", linear(4*perL1, base, 0, 1, 1, 1), guest.PFN(2*perL1 + 9), 2*perL1 + 9},
			{"linear, all the same", linear(3*perL1, base, 0, 0, 0), 0, 3*perL1 - 1},
			// Where stock Xen drops what the last level 2 entry leads to.
			{"linear, not from a table's start", linear(2*perL1, base+5<<21, 0, 1), 0, 2*perL1 - 1},
			{"linear, over two tables", linear(3*perL1, base+511<<21, 0, 1, 2), 0, 3*perL1 - 1},
			{"linear, a run over two tables", linear(4*perL1, base+510<<21, 0, 1, 1, 1), 0, perL1 - 1},
		} {
			t.Run(fmt.Sprintf("%v/%s", kind, row.name), func(t *testing.T) {
				g := newFakePV(kind)
				row.make(g)
				p2m, err := g.walk(row.floor)
				if err != nil {
					t.Fatal(err)
				}
				if uint64(p2m.last) != row.last || uint64(len(p2m.frames)) != row.last/l.fpp+1 {
					t.Errorf("last PFN %#x in %d frames, want %#x", p2m.last, len(p2m.frames), row.last)
				}
				if p2m.frames[0] != 10 || len(p2m.frames) > 1 && p2m.frames[1] != 11 {
					t.Errorf("P2M is in PFNs %d", p2m.frames[:min(2, len(p2m.frames))])
				}
				for p, m := range g.mfns {
					if back, err := p2m.pfn(m); p2m.mfn(guest.PFN(p)) != m || err != nil || back != guest.PFN(p) {
						t.Fatalf("PFN %d is MFN %#x, and that PFN %d: %v", p, p2m.mfn(guest.PFN(p)), back, err)
					}
				}
				for _, p := range []guest.PFN{fakePages, p2m.last + 1, 1 << 51} {
					if m := p2m.mfn(p); m != guest.InvalidMFN {
						t.Errorf("PFN %#x is MFN %#x", p, m)
					}
				}
			})
		}
	}
}

// TestWalkErrors gives the walker what a broken or hostile guest could have.
func TestWalkErrors(t *testing.T) {
	const base = 0xFFFFC90000000000
	good := func(g *fakePV) {
		g.set(g.l.arch, fakePages)
		g.mapLinear(base, g.l1(g.mfns[20], g.leaf))
	}
	for _, row := range []struct {
		name string
		make func(*fakePV)
		want string
	}{
		{"nothing set up", func(*fakePV) {}, "it has no P2M yet"},
		{"2^52 PFNs", func(g *fakePV) { g.set(g.l.arch, 1<<52) }, "the stream can hold"},
		{"no list", func(g *fakePV) { g.set(g.l.arch, fakePages) }, "frame_list_list: 0x0 is no frame"},
		{"list of another domain", func(g *fakePV) { g.set(g.l.arch, fakePages); g.set(g.l.frameListList, 5) }, "refused"},
		{"list past memory", func(g *fakePV) { g.set(g.l.arch, fakePages); g.set(g.l.frameListList, 1<<40) }, "is no frame of this host"},
		{"too many for a tree", func(g *fakePV) {
			g.set(g.l.arch, 1<<27+1)
			g.set(g.l.frameListList, uint64(g.mfns[12]))
		}, "too many for a tree"},
		{"leaf of nobody", func(g *fakePV) { good(g); g.l1(g.mfns[20], 0) }, "entry 0: 0x0 is no frame"},
		{"leaf with a lying M2P", func(g *fakePV) { good(g); g.m2p[g.leaf] = 3 }, "not a frame of the guest's P2M"},
		{"leaf past the end", func(g *fakePV) { good(g); g.m2p[g.leaf] = 1 << 51 }, "not a frame of the guest's P2M"},
		{"not canonical", func(g *fakePV) { good(g); g.set(g.l.p2mAddr, 1<<60) }, "no P2M can be"},
		{"in Xen's hole", func(g *fakePV) { good(g); g.set(g.l.p2mAddr, 0xFFFF800000000000) }, "no P2M can be"},
		{"around the hole", func(g *fakePV) {
			good(g)
			g.set(g.l.arch, 1<<32-1)
			g.set(g.l.p2mAddr, 0xFFFF7FFFFFFFF000)
		}, "no P2M can be"},
		{"over the end", func(g *fakePV) { good(g); g.set(g.l.p2mAddr, 0xFFFFFFFFFFFFF000); g.set(g.l.arch, 4096) }, "no P2M can be"},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := newFakePV(guest.PV64)
			row.make(g)
			if _, err := g.walk(0); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want one with %q", err, row.want)
			}
		})
	}
	g := newFakePV(guest.PV64)
	good(g)
	if _, err := g.walk(fakePages); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("a P2M that became shorter: %v", err)
	}
	if _, err := g.walk(fakePages - 1); errors.Is(err, errRefused) || err != nil {
		t.Error(err)
	}
}
