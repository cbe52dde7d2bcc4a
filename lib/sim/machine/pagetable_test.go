package machine

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"xenferry/lib/guest"
)

// uses is what a frame must be in use as and how often, found by walking everything that refers to frames.
type uses struct {
	typ                  frameType
	types, refs          uint32
	pinned, valid, xenL2 bool
}

// walk finds the uses of all frames of a PV domain from scratch: from its pins, vCPUs and writable mappings.
func walk(m *Machine, d *domain) map[guest.MFN]*uses {
	all := map[guest.MFN]*uses{}
	at := func(f guest.MFN) *uses {
		if all[f] == nil {
			all[f] = &uses{}
		}
		return all[f]
	}
	shared := at(d.sharedInfo)
	shared.typ, shared.types, shared.refs = typeWritable, 1, 1
	var use func(f guest.MFN, t frameType, xenL2 bool)
	use = func(f guest.MFN, t frameType, xenL2 bool) {
		u := at(f)
		u.refs++
		if t == typeNone {
			return
		}
		u.typ = t
		if u.types++; u.types > 1 || !t.table() {
			return
		}
		u.valid, u.xenL2 = true, xenL2
		for i := range 512 {
			e := readPTE(table(m.page(f)), i)
			if e&pteP == 0 || !d.guestSlot(t, xenL2, i) || t > 1 && pteMFN(e) == f {
				continue
			}
			below := t - 1
			if t == 1 && e&pteRW != 0 {
				below = typeWritable
			}
			use(pteMFN(e), below, t == 3 && d.width() == 4 && i == 3)
		}
	}
	for f := range m.frames {
		fr := &m.frames[f]
		if fr.owner() == d.id && fr.is(infoPinned) {
			at(guest.MFN(f)).pinned = true
			use(guest.MFN(f), fr.typ(), false)
		}
	}
	for _, v := range d.vcpus {
		for _, f := range v.roots {
			use(f, frameType(d.levels()), false)
		}
		for _, f := range v.gdt {
			use(f, typeSegDesc, false)
		}
	}
	for _, h := range m.holds {
		for _, f := range h.frames {
			use(f, typeWritable, false)
		}
	}
	return all
}

// checkUses compares what the machine has counted with what walk finds.
func checkUses(t *rapid.T, m *Machine, d *domain) {
	all := walk(m, d)
	for f := range m.frames {
		fr := &m.frames[f]
		if fr.owner() != d.id {
			continue
		}
		want := all[guest.MFN(f)]
		if want == nil {
			want = &uses{}
		}
		got := uses{fr.typ(), fr.types, fr.refs, fr.is(infoPinned), fr.is(infoValidated), fr.is(infoXenL2)}
		if got != *want {
			t.Fatalf("frame %#x is %+v, want %+v", f, got, *want)
		}
	}
}

// tables is a random set of operations on the page tables of one domain.
type tables struct {
	m      *Machine
	d      *domain
	v      *View
	frames []guest.MFN // a few of each level are meant as tables; the rest is plain
	holds  []uint64
	pins   int
}

// perLevel frames are meant as tables of each level, most of whose entries lead to the level below.
const perLevel = 3

func (s *tables) frame(t *rapid.T, level int) guest.MFN {
	if rapid.IntRange(0, 9).Draw(t, "stray") == 0 {
		return s.frames[rapid.IntRange(0, len(s.frames)-1).Draw(t, "frame")]
	}
	return s.frames[level*perLevel+rapid.IntRange(0, perLevel-1).Draw(t, "which")]
}

func (s *tables) pte(t *rapid.T, level int) uint64 {
	switch rapid.IntRange(0, 29).Draw(t, "kind") {
	case 0:
		return 0
	case 1:
		return makePTE(s.d.sharedInfo, pteP|pteRW)
	case 2:
		return makePTE(guest.MFN(s.m.Frames()), pteP)
	case 3:
		return makePTE(s.frames[0], pteP|ptePSE)
	}
	flags := uint64(pteP)
	if rapid.Bool().Draw(t, "writable") {
		flags |= pteRW
	}
	return makePTE(s.frame(t, level-1), flags)
}

func (s *tables) step(t *rapid.T) {
	level := rapid.IntRange(1, s.d.levels()).Draw(t, "level")
	f := s.frame(t, level)
	slot := rapid.SampledFrom([]int{0, 1, 2, 3, 256, 271, 427, 428, 511}).Draw(t, "slot")
	switch rapid.IntRange(0, 9).Draw(t, "op") {
	default:
		_ = s.v.WritePTE(f, slot, s.pte(t, level))
	case 0, 1:
		if s.v.Pin(guest.PinOp{MFN: f, Level: level}) == nil {
			s.pins++
		}
	case 2:
		_ = s.v.Unpin(f)
	case 3:
		c := make([]byte, s.d.layout().size)
		l := s.d.layout()
		root, gdt := s.frame(t, s.d.levels()), s.frame(t, 0)
		if l.word == 4 {
			le.PutUint32(c[l.cr3:], uint32(root)<<12)
			le.PutUint32(c[l.gdt:], uint32(gdt))
			le.PutUint32(c[l.gdt+gdtFrames*4:], 1)
		} else {
			le.PutUint64(c[l.cr3:], uint64(root)<<12)
			le.PutUint64(c[l.cr1:], uint64(s.frame(t, 4))<<12)
			le.PutUint64(c[l.gdt:], uint64(gdt))
			le.PutUint64(c[l.gdt+gdtFrames*8:], 1)
		}
		_ = s.v.SetVCPUContext(uint32(rapid.IntRange(0, 1).Draw(t, "vcpu")), c)
	case 4:
		gfns := []guest.GFN{guest.GFN(f), guest.GFN(s.frame(t, 0)), guest.InvalidGFN}
		h, _, err := s.m.Map(s.d.id, gfns, make([]guest.MFN, len(gfns)), guest.ReadWrite)
		if err != nil {
			t.Fatal(err)
		}
		s.holds = append(s.holds, h)
	case 5:
		if n := len(s.holds); n > 0 {
			s.m.Unmap(s.holds[n-1])
			s.holds = s.holds[:n-1]
		}
	case 6:
		if s.v.Depopulate([]guest.GFN{guest.GFN(f)}) == nil {
			mfns, err := s.v.Populate([]guest.PFN{0})
			if err != nil {
				t.Fatal(err)
			}
			clear(s.v.Page(mfns[0]))
			for i := range s.frames {
				if s.frames[i] == f {
					s.frames[i] = mfns[0]
				}
			}
		}
	}
}

// Whatever a guest and a toolstack do to page tables, and whatever of it is refused, each frame's type and counts are
// those that a walk from scratch finds.
func TestTypesProperty(t *testing.T) {
	for _, kind := range []guest.Kind{guest.PV64, guest.PV32} {
		t.Run(kind.String(), func(t *testing.T) {
			pinned := 0
			rapid.Check(t, func(t *rapid.T) {
				m, err := New(Options{Memory: minMemory, Log: LogSoftware, Seed: 5})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				id, err := m.Create(guest.Spec{Kind: kind, VCPUs: 2, MaxPages: 100})
				if err != nil {
					t.Fatal(err)
				}
				s := &tables{m: m, d: m.domains[id]}
				if s.v, err = m.View(id); err != nil {
					t.Fatal(err)
				}
				pfns := make([]guest.PFN, perLevel*(kind.Levels()+1))
				if s.frames, err = s.v.Populate(pfns); err != nil {
					t.Fatal(err)
				}
				for range rapid.IntRange(1, 60).Draw(t, "steps") {
					s.step(t)
					checkUses(t, m, s.d)
				}
				pinned += s.pins
			})
			if pinned == 0 {
				t.Error("no table was ever pinned, so the test tests nothing")
			}
		})
	}
}

// Xen's own slots are filled by Xen, whatever the guest had there, and are no reason to refuse a table.
func TestXenSlots(t *testing.T) {
	m := newMachine(t, Options{})
	v, frames := populate(t, m, create(t, m, guest.PV64, 10), 10)
	junk := makePTE(guest.MFN(m.Frames()+5), pteP|pteRW|ptePSE)
	l4 := table(v.Page(frames[0]))
	for i := xenL4First; i < xenL4First+xenL4Slots; i++ {
		l4[i] = junk
	}
	if err := v.Pin(guest.PinOp{MFN: frames[0], Level: 4}); err != nil {
		t.Fatal(err)
	}
	for i := range l4 {
		xen := i >= xenL4First && i < xenL4First+xenL4Slots
		if e := l4[i]; xen != (e&pteP != 0) || e == junk {
			t.Errorf("slot %d is %#x", i, e)
		}
		if err := v.WritePTE(frames[0], i, 0); (err != nil) != xen {
			t.Errorf("write slot %d: %v", i, err)
		}
	}

	v, frames = populate(t, m, create(t, m, guest.PV32, 10), 10)
	l3, l2 := table(v.Page(frames[0])), table(v.Page(frames[1]))
	for i := range l3 {
		l3[i], l2[i] = junk, junk
	}
	for i := range xenL2First {
		l2[i] = 0
	}
	l3[0], l3[1], l3[2], l3[3] = 0, 0, 0, makePTE(frames[1], pteP)
	if err := v.Pin(guest.PinOp{MFN: frames[0], Level: 3}); err != nil {
		t.Fatal(err)
	}
	if got := pteMFN(l2[xenL2First]); got != m.CompatM2P() || l2[511] == junk || l3[4] != 0 || l3[511] != 0 {
		t.Errorf("slot 428 leads to %#x, want %#x; others %#x, %#x, %#x", uint64(got), uint64(m.CompatM2P()), l2[511], l3[4], l3[511])
	}
	if err := v.WritePTE(frames[0], 3, 0); err == nil {
		t.Error("slot 3 of a PV32 L3 in use could be changed")
	}
	if err := v.WritePTE(frames[1], xenL2First, 0); err == nil {
		t.Error("a slot of Xen's in an L2 could be changed")
	}
}

// What makes a table, what changes one and what ends one is dirty.
func TestTablesAreDirty(t *testing.T) {
	m := newMachine(t, Options{Log: LogSoftware})
	id := create(t, m, guest.PV64, 10)
	v, frames := populate(t, m, id, 10)
	for i, f := range frames[:4] {
		clear(v.Page(f))
		if i > 0 {
			table(v.Page(f))[0] = makePTE(frames[i-1], pteP)
		}
	}
	if err := m.SetLogDirty(id, true); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		do   func() error
		want guest.Bitmap
	}{
		{"pin", func() error { return v.Pin(guest.PinOp{MFN: frames[3], Level: 4}) }, guest.Bitmap{0b1111}},
		{"update", func() error { return v.WritePTE(frames[0], 5, makePTE(frames[7], pteP|pteRW)) }, guest.Bitmap{0b1}},
		{"cut", func() error { return v.WritePTE(frames[3], 0, 0) }, guest.Bitmap{0b1111}},
		{"unpin", func() error { return v.Unpin(frames[3]) }, guest.Bitmap{0b1000}},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		b := guest.NewBitmap(10)
		if _, err := m.Dirty(id, 10, b, true, false); err != nil || fmt.Sprint(b) != fmt.Sprint(c.want) {
			t.Errorf("%s: dirty %b, want %b: %v", c.what, b, c.want, err)
		}
	}
}
