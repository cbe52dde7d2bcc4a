package machine

import (
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// The parts of a page table entry.
const (
	pteP     = 0x1
	pteRW    = 0x2
	ptePWT   = 0x8
	ptePCD   = 0x10
	ptePSE   = 0x80 // PAT in an L1 entry
	pteG     = 0x100
	pteFrame = 0x000F_FFFF_FFFF_F000
	pteHigh  = 0xFFF0_0000_0000_0000
)

// Bits that a guest without devices may not set. The L3 of PV32 has no bits above the frame at all.
const (
	reservedL1   = ptePWT | ptePCD | ptePSE
	reservedL234 = ptePWT | ptePCD | ptePSE | pteG
)

// Xen's own slots: in each PV64 L4, and in the one L2 under slot 3 of each PV32 L3.
const (
	xenL4First = 256
	xenL4Slots = 16
	xenL2First = 428
	pv32L3     = 4 // slots that a PV32 L3 has
)

// Slots of xenL4Slots that hold what only a domain has.
const (
	xenLinear    = 2 // the table itself
	xenPerDomain = 4
)

func pteMFN(e uint64) guest.MFN { return guest.MFN(e & pteFrame >> guest.PageShift) }

func makePTE(f guest.MFN, flags uint64) uint64 { return uint64(f)<<guest.PageShift | flags }

// guestSlot reports whether slot i of a table is the guest's to use.
func (d *domain) guestSlot(level frameType, xenL2 bool, i int) bool {
	switch {
	case level == 4:
		return i < xenL4First || i >= xenL4First+xenL4Slots
	case level == 3 && d.width() == 4:
		return i < pv32L3
	case level == 2 && xenL2:
		return i < xenL2First
	}
	return true
}

// getType takes a reference to f as t, which is refused while f is in use as anything else. The first reference to
// a page table checks all its entries and refers to what they map, down to L1; xenL2 is infoXenL2 or 0. f is d's.
func (m *Machine) getType(d *domain, f guest.MFN, t frameType, xenL2 uint32) error {
	fr := &m.frames[f]
	if fr.types > 0 {
		switch {
		case fr.typ() != t:
			return refuse(unix.EINVAL, "frame %#x is %v, so it cannot be %v", uint64(f), fr.typ(), t)
		case fr.load()&infoXenL2 != xenL2:
			return refuse(unix.EINVAL, "frame %#x is an L2 table both with and without Xen's slots", uint64(f))
		case t.table() && !fr.is(infoValidated):
			return refuse(unix.EINVAL, "frame %#x is below itself in a page table", uint64(f))
		}
		fr.types++
		return nil
	}
	fr.setType(t)
	fr.types = 1
	if !t.table() {
		return nil
	}
	fr.set(xenL2)
	m.log.mark(f)
	if err := m.validate(d, f, t, xenL2 != 0); err != nil {
		fr.types = 0
		fr.clear(infoXenL2)
		fr.setType(typeNone)
		return err
	}
	fr.set(infoValidated)
	return nil
}

// putType gives a reference back. The last one to a page table lets go of all it maps.
func (m *Machine) putType(d *domain, f guest.MFN) {
	fr := &m.frames[f]
	if fr.types == 0 {
		panic("machine: a frame lost a use it does not have: a guest wrote to a page table behind Xen's back")
	}
	if fr.types--; fr.types > 0 {
		return
	}
	t := fr.typ()
	if t.table() {
		m.invalidate(d, f, t, len(table(m.page(f))))
		m.log.mark(f)
	}
	fr.clear(infoValidated | infoXenL2)
	fr.setType(typeNone)
}

// validate checks and refers to the entries of a table, and fills in Xen's own.
func (m *Machine) validate(d *domain, f guest.MFN, level frameType, xenL2 bool) error {
	t := table(m.page(f))
	for i := range t {
		if !d.guestSlot(level, xenL2, i) {
			continue
		}
		if err := m.getEntry(d, f, level, i, readPTE(t, i)); err != nil {
			m.invalidate(d, f, level, i)
			return err
		}
	}
	m.fillXen(d, f, level, xenL2)
	return nil
}

// invalidate gives back what the first n entries of a table refer to.
func (m *Machine) invalidate(d *domain, f guest.MFN, level frameType, n int) {
	xenL2 := m.frames[f].is(infoXenL2)
	t := table(m.page(f))
	for i := range n {
		if d.guestSlot(level, xenL2, i) {
			m.putEntry(d, f, level, readPTE(t, i))
		}
	}
}

// getEntry checks one entry and refers to its frame.
func (m *Machine) getEntry(d *domain, in guest.MFN, level frameType, i int, e uint64) error {
	lastPV32 := level == 3 && d.width() == 4 && i == pv32L3-1
	if e&pteP == 0 {
		if lastPV32 {
			return refuse(unix.EINVAL, "slot 3 of L3 table %#x, which Xen shares, is empty", uint64(in))
		}
		return nil
	}
	f := pteMFN(e)
	bad := func(errno unix.Errno, why string) error {
		return refuse(errno, "entry %d of L%d table %#x (%#x) %s", i, level, uint64(in), e, why)
	}
	reserved := uint64(reservedL234)
	if level == 1 {
		reserved = reservedL1
	} else if level == 3 && d.width() == 4 {
		reserved |= pteHigh
	}
	if level > 1 && e&ptePSE != 0 {
		return bad(unix.EINVAL, "is a superpage")
	}
	if e&reserved != 0 {
		return bad(unix.EINVAL, "has reserved bits set")
	}
	if !d.owns(f) {
		return bad(unix.EPERM, "maps a frame that is not the domain's")
	}
	if level > 1 && f == in { // a linear page table
		if e&pteRW != 0 {
			return bad(unix.EINVAL, "maps its own table writably")
		}
		return nil
	}
	if err := m.getTarget(d, f, level, e, lastPV32); err != nil {
		return refuse(errnoOf(err), "entry %d of L%d table %#x: %s", i, level, uint64(in), whyOf(err))
	}
	m.frames[f].refs++
	return nil
}

// getTarget takes the typed reference that an entry of a level-th level table holds to frame f.
func (m *Machine) getTarget(d *domain, f guest.MFN, level frameType, e uint64, lastPV32 bool) error {
	switch {
	case level == 1 && e&pteRW != 0:
		return m.getType(d, f, typeWritable, 0)
	case level == 1:
		return nil
	case m.frames[f].is(infoXenHeap):
		return refuse(unix.EINVAL, "Xen's frame %#x cannot be a page table", uint64(f))
	case !lastPV32:
		return m.getType(d, f, level-1, 0)
	}
	if err := m.getType(d, f, level-1, infoXenL2); err != nil {
		return err
	}
	if m.frames[f].types > 1 {
		m.putType(d, f)
		return refuse(unix.EINVAL, "the L2 table %#x under slot 3 is shared by two L3 tables", uint64(f))
	}
	return nil
}

// putEntry is the inverse of getEntry.
func (m *Machine) putEntry(d *domain, in guest.MFN, level frameType, e uint64) {
	f := pteMFN(e)
	if e&pteP == 0 || level > 1 && f == in {
		return
	}
	if level > 1 || e&pteRW != 0 {
		m.putType(d, f)
	}
	m.frames[f].refs--
}

// fillXen writes Xen's own entries into a table of the guest's.
func (m *Machine) fillXen(d *domain, f guest.MFN, level frameType, xenL2 bool) {
	const flags = pteP | pteRW | 0x60 // accessed, dirty
	t := table(m.page(f))
	switch {
	case level == 4:
		for i := range xenL4Slots {
			to := m.xenL3[i]
			if i == xenLinear {
				to = f
			}
			writePTE(t, xenL4First+i, makePTE(to, flags))
		}
	case level == 3 && d.width() == 4:
		for i := pv32L3; i < len(t); i++ {
			writePTE(t, i, 0)
		}
	case xenL2:
		// The M2P as 32-bit guests see it: 4 octets a frame, in superpages of 2 MiB.
		covered := (len(m.frames)*4 + 1<<21 - 1) >> 21
		for i := xenL2First; i < len(t); i++ {
			e := uint64(0)
			if n := i - xenL2First; n < covered {
				e = makePTE(m.compat+guest.MFN(n*512), flags|ptePSE)
			}
			writePTE(t, i, e)
		}
	}
}

// Pin pins page tables of a PV domain, in order up to the first that is refused.
func (m *Machine) Pin(id guest.DomID, ops []guest.PinOp) error {
	return m.with("pin tables of", id, func(d *domain) error { return d.pinAll(ops) })
}

func (d *domain) pinAll(ops []guest.PinOp) error {
	for i, op := range ops {
		if err := d.pin(op); err != nil {
			return refuse(errnoOf(err), "frame %#x as L%d (%d of %d done): %s", uint64(op.MFN), op.Level, i, len(ops), whyOf(err))
		}
	}
	return nil
}

func (d *domain) pin(op guest.PinOp) error {
	m := d.m
	switch {
	case !d.pv():
		return refuse(unix.EINVAL, "it is an HVM domain")
	case op.Level < 1 || op.Level > d.levels(): // Xen ignores an L4 of a PV32 domain, which would hide the mistake
		return refuse(unix.EINVAL, "a %v domain has no such level", d.spec.Kind)
	case !d.ownsRAM(op.MFN):
		return refuse(unix.EINVAL, "it is not a frame of the domain")
	}
	if err := m.getType(d, op.MFN, frameType(op.Level), 0); err != nil {
		return err
	}
	fr := &m.frames[op.MFN]
	if fr.is(infoPinned) {
		m.putType(d, op.MFN)
		return refuse(unix.EINVAL, "it is pinned already")
	}
	fr.set(infoPinned)
	fr.refs++
	m.log.mark(op.MFN)
	return nil
}

func (d *domain) unpin(f guest.MFN) error {
	if !d.ownsRAM(f) || !d.m.frames[f].is(infoPinned) {
		return refuse(unix.EINVAL, "frame %#x is not pinned", uint64(f))
	}
	fr := &d.m.frames[f]
	fr.clear(infoPinned)
	d.m.putType(d, f)
	fr.refs--
	d.m.log.mark(f)
	return nil
}

// writePTE is one update of a page table in use, or of plain memory (HYPERVISOR_mmu_update).
func (d *domain) writePTE(in guest.MFN, i int, e uint64) error {
	m := d.m
	if i < 0 || i >= 512 {
		return refuse(unix.EINVAL, "a page table has no entry %d", i)
	}
	if !d.ownsRAM(in) {
		return refuse(unix.EINVAL, "frame %#x is not the domain's", uint64(in))
	}
	fr, t := &m.frames[in], table(m.page(in))
	level := fr.typ()
	switch {
	case fr.types > 0 && level == typeSegDesc:
		return refuse(unix.EPERM, "frame %#x is %v", uint64(in), level)
	case fr.types > 0 && level.table():
		xenL2 := fr.is(infoXenL2)
		if !d.guestSlot(level, xenL2, i) || level == 3 && d.width() == 4 && i == pv32L3-1 {
			return refuse(unix.EINVAL, "slot %d of L%d table %#x is Xen's", i, level, uint64(in))
		}
		if err := m.getEntry(d, in, level, i, e); err != nil {
			return err
		}
		old := readPTE(t, i)
		writePTE(t, i, e)
		m.putEntry(d, in, level, old)
	default:
		writePTE(t, i, e)
	}
	m.log.mark(in)
	return nil
}
