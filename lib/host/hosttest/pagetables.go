package hosttest

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// space is the least address space of a PV guest: one table of each level, and plain pages under the L1.
type space struct {
	id     guest.DomID
	tables [5]guest.GFN // by level; 0 unused
	plain  []guest.GFN
}

const (
	present  = 1
	writable = 2
)

func entry(f guest.GFN, flags uint64) uint64 { return uint64(f)<<guest.PageShift | flags }

// space makes one: slot 0 of each table leads to the next, in a PV32 domain slot 3 of the L3; the L1 maps the plain
// pages, writably, from slot 1 on, and itself, read-only, in slot 0.
func (s *suite) space(kind guest.Kind) *space {
	s.Helper()
	sp := &space{id: s.create(kind, 2, 64)}
	gfns := s.populate(sp.id, 0, 16)
	levels := kind.Levels()
	for l := 1; l <= levels; l++ {
		sp.tables[l] = gfns[l]
	}
	sp.plain = gfns[8:]
	for l := levels; l > 1; l-- {
		slot := 0
		if kind == guest.PV32 && l == 3 {
			slot = 3
		}
		s.table(sp, l, map[int]uint64{slot: entry(sp.tables[l-1], present|writable)})
	}
	l1 := map[int]uint64{0: entry(sp.tables[1], present)}
	for i, f := range sp.plain {
		l1[1+i] = entry(f, present|writable)
	}
	s.table(sp, 1, l1)
	return sp
}

// table sets the entries of one table, and clears all others.
func (s *suite) table(sp *space, level int, entries map[int]uint64) {
	s.Helper()
	s.write(sp.id, sp.tables[level:level+1], func(_ int, p []byte) {
		clear(p)
		for i, e := range entries {
			binary.LittleEndian.PutUint64(p[i*8:], e)
		}
	})
}

func (s *suite) pin(sp *space, level int) error {
	return s.Pin(s.ctx, sp.id, []guest.PinOp{{MFN: guest.MFN(sp.tables[level]), Level: level}})
}

func pin(s *suite, kind guest.Kind) {
	if kind == guest.PV32 {
		s.need(PV32)
	}
	sp := s.space(kind)
	top := kind.Levels()
	want := []guest.PageType{guest.NoTab, guest.NoTab, guest.NoTab, guest.NoTab}
	s.wantTypes(sp.id, want[:top], sp.tables[1:top+1]...)

	if s.has(LogOfMappings) {
		s.ok(s.SetLogDirty(s.ctx, sp.id, true))
	}
	s.ok(s.pin(sp, top))
	want = []guest.PageType{guest.L1Tab, guest.L2Tab, guest.L3Tab, guest.L4Tab}
	want[top-1] |= guest.Pinned
	s.wantTypes(sp.id, want[:top], sp.tables[1:top+1]...)
	s.wantTypes(sp.id, []guest.PageType{guest.NoTab}, sp.plain[0])
	var tables []uint64 // a page that becomes a table is dirty
	for l := 1; l <= top; l++ {
		tables = append(tables, uint64(l))
	}
	if s.has(LogOfMappings) {
		s.dirty(sp.id, true, tables...)
	}

	s.refused(s.pin(sp, top), unix.EINVAL, "pin a table twice")
	s.ok(s.pin(sp, 1))
	s.wantTypes(sp.id, []guest.PageType{guest.L1Tab | guest.Pinned}, sp.tables[1])

	m, err := s.Map(s.ctx, sp.id, []guest.GFN{sp.tables[1], sp.plain[0]}, guest.ReadWrite)
	s.ok(err)
	if m.Pages[0] != nil || m.Pages[1] == nil {
		s.Error("a page table was mapped writably, or a plain page was not")
	}
	s.ok(m.Close())
	m, err = s.Map(s.ctx, sp.id, sp.tables[1:top+1], guest.ReadOnly)
	s.ok(err)
	if i, err := m.Err(); err != nil {
		s.Errorf("map the L%d table read-only: %v", i+1, err)
	}
	s.ok(m.Close())
	if s.has(Refusals) {
		s.refused(s.Depopulate(s.ctx, sp.id, sp.tables[1:2]), nil, "depopulate a page table in use")
	}
}

// pinUnfit makes one thing wrong with a good tree of tables at a time.
func pinUnfit(s *suite) {
	foreign := s.populate(s.create(guest.PV64, 1, 4), 0, 1)[0]
	for _, c := range []struct {
		name  string
		level int // of the table to spoil
		slot  int
		entry func(sp *space) uint64
	}{
		{"L1 maps another domain's frame", 1, 500, func(*space) uint64 { return entry(foreign, present) }},
		{"L1 maps no frame", 1, 500, func(*space) uint64 { return entry(1<<39, present) }},
		{"L1 maps itself writably", 1, 500, func(sp *space) uint64 { return entry(sp.tables[1], present|writable) }},
		{"L1 maps the L4 writably", 1, 500, func(sp *space) uint64 { return entry(sp.tables[4], present|writable) }},
		{"L2 has a superpage", 2, 7, func(sp *space) uint64 { return entry(sp.plain[0], present|0x80) }},
		{"L2 leads to a page that L1 maps writably", 2, 7, func(sp *space) uint64 { return entry(sp.plain[0], present) }},
		{"L3 leads to an L1", 3, 511, func(sp *space) uint64 { return entry(sp.tables[1], present) }},
		{"L4 leads to an L2", 4, 511, func(sp *space) uint64 { return entry(sp.tables[2], present) }},
		{"L4 leads to another domain's frame", 4, 511, func(*space) uint64 { return entry(foreign, present) }},
	} {
		sp := s.space(guest.PV64)
		s.write(sp.id, sp.tables[c.level:c.level+1], func(_ int, p []byte) {
			binary.LittleEndian.PutUint64(p[c.slot*8:], c.entry(sp))
		})
		s.refused(s.pin(sp, 4), nil, c.name)
		if s.has(Refusals) {
			no := guest.NoTab // nothing is left of the attempt
			s.wantTypes(sp.id, []guest.PageType{no, no, no, no}, sp.tables[1:]...)
		}
		s.ok(s.Depopulate(s.ctx, sp.id, []guest.GFN{sp.plain[3]}))
	}
	sp := s.space(guest.PV64)
	for what, op := range map[string]guest.PinOp{
		"another domain's frame": {MFN: guest.MFN(foreign), Level: 1},
		"no frame":               {MFN: guest.InvalidMFN, Level: 1},
		"level 5":                {MFN: guest.MFN(sp.tables[1]), Level: 5},
		"shared_info":            {MFN: s.info(sp.id).SharedInfo, Level: 1},
	} {
		s.refused(s.Pin(s.ctx, sp.id, []guest.PinOp{op}), nil, "pin "+what)
	}
	if !s.has(PV32) {
		return
	}
	sp = s.space(guest.PV32)
	s.table(sp, 3, nil)
	s.refused(s.pin(sp, 3), nil, "pin an L3 of PV32 without its slot 3")
}

// context is a vcpu_guest_context for a space: its root, and a GDT of one page.
func (sp *space) context(kind guest.Kind, gdt guest.GFN) []byte {
	root := sp.tables[kind.Levels()]
	if kind == guest.PV32 {
		c := make([]byte, 2800)
		le.PutUint32(c[2640:], uint32(gdt))
		le.PutUint32(c[2704:], 16)
		le.PutUint32(c[2728:], uint32(root)<<12|uint32(root)>>20)
		c[512] = 0x20
		return c
	}
	c := make([]byte, 5168)
	le.PutUint64(c[4832:], uint64(gdt))
	le.PutUint64(c[4960:], 16)
	le.PutUint64(c[5008:], uint64(root)<<12)
	le.PutUint64(c[4992:], uint64(root)<<12)
	c[512] = 0x20
	return c
}

func vcpuContext(s *suite, kind guest.Kind) {
	if kind == guest.PV32 {
		s.need(PV32)
	}
	sp := s.space(kind)
	top := kind.Levels()
	free := s.populate(sp.id, 100, 1)[0] // mapped by no table
	c := sp.context(kind, free)
	set := func(n uint32, c []byte) error { return s.SetVCPUContext(s.ctx, sp.id, n, c) }
	s.ok(s.pin(sp, 1))

	s.refused(set(0, c[:len(c)-1]), nil, "a context one octet short")
	s.refused(set(2, c), nil, "vCPU 2 of 2")
	s.refused(set(0, sp.context(kind, sp.plain[0])), nil, "a GDT that the guest maps writably")
	s.refused(set(0, sp.context(kind, sp.tables[1])), nil, "a GDT that is a page table")
	s.refused(set(0, sp.context(kind, 1<<30)), nil, "a GDT that is no frame")
	wrong := *sp
	wrong.tables[top] = sp.tables[1]
	s.refused(set(0, wrong.context(kind, free)), nil, "a cr3 of the wrong level")
	wrong.tables[top] = guest.GFN(s.info(sp.id).SharedInfo)
	s.refused(set(0, wrong.context(kind, free)), nil, "a cr3 that is shared_info")
	no, l1 := guest.NoTab, guest.L1Tab|guest.Pinned
	s.wantTypes(sp.id, []guest.PageType{l1, no, no, no}[:top], sp.tables[1:top+1]...)

	s.ok(set(0, c))
	want := []guest.PageType{l1, guest.L2Tab, guest.L3Tab, guest.L4Tab}
	s.wantTypes(sp.id, want[:top], sp.tables[1:top+1]...)
	online, err := s.VCPUOnline(s.ctx, sp.id, 0)
	if s.ok(err); !online {
		s.Error("a vCPU whose context says so is not online")
	}
	online, err = s.VCPUOnline(s.ctx, sp.id, 1)
	if s.ok(err); online {
		s.Error("a vCPU without context is online")
	}
	got, err := s.VCPUContext(s.ctx, sp.id, 0)
	if s.ok(err); len(got) != len(c) {
		s.Fatalf("a context of %d octets comes back as %d", len(c), len(got))
	}
	got[600]++ // rax, or a trap entry
	s.ok(set(0, got))
	s.refused(set(0, sp.context(kind, sp.plain[1])), unix.EOPNOTSUPP, "another GDT for a vCPU in use")
	s.ok(s.pin(sp, top))
	want[top-1] |= guest.Pinned
	s.wantTypes(sp.id, want[:top], sp.tables[1:top+1]...)
}
