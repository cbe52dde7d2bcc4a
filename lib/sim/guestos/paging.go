package guestos

import (
	"fmt"

	"xenferry/lib/guest"
)

// Bits of a page-table entry, and what the guest's kernel sets in each kind of its own: a 64-bit PV guest runs in
// ring 3, so that all its mappings are user's; entries of a PAE L3 have no rights of their own.
const (
	ptePresent   = 0x001
	pteUser      = 0x004
	pteFrameMask = 0x000FFFFFFFFFF000
	pteTable     = 0x067 // present, writable, user, accessed, dirty
	pteRW        = 0x067
	pteRO        = 0x025
	ptePAERoot   = 0x001
)

// A page table is 512 entries of 8 octets.
const entries = guest.PageSize / 8

// space is where a guest's kernel has what in its address space.
type space struct {
	levels  int
	direct  uint64 // all RAM, PFN by PFN
	limit   uint64 // the end of that; pv32 does not reach all of a big guest
	p2m     uint64 // PV: the P2M, whole
	records uint64 // the page records, then a page for each vCPU
	shared  uint64 // PV: shared_info
}

// spaceOf is the address space of a kind. Those of 64 bits are where Linux has them; none touches Xen's own part.
func spaceOf(k guest.Kind) space {
	if k == guest.PV32 {
		return space{levels: 3, direct: 0xC0000000, limit: 0xF0000000, records: 0xF0000000, p2m: 0xF4000000, shared: 0xF57FF000}
	}
	return space{levels: 4, direct: 0xFFFF888000000000, limit: 0xFFFFC88000000000, p2m: 0xFFFFC90000000000,
		records: 0xFFFFEA0000000000, shared: 0xFFFFFFFFFF5FD000}
}

// directAddr is the address of page p in the direct map, if it has one.
func (s *space) directAddr(p guest.PFN) (uint64, bool) {
	va := s.direct + uint64(p)<<guest.PageShift
	return va, va < s.limit
}

// slot is the index of an address in its table of a level.
func (s *space) slot(va uint64, level int) int {
	if s.levels == 3 && level == 3 {
		return int(va >> 30 & 3)
	}
	return int(va >> (guest.PageShift + 9*(level-1)) & (entries - 1))
}

// tableFlags is what an entry has that points from a table of a level to the one below.
func (s *space) tableFlags(level int) uint64 {
	if s.levels == 3 && level == 3 {
		return ptePAERoot
	}
	return pteTable
}

// xenSlots are the entries of a PV table that belong to Xen: from and up to, but not including, those slots. An L2 has
// them only if it maps the top gigabyte of a pv32 guest.
func xenSlots(k guest.Kind, level int, top bool) (from, to int) {
	switch {
	case k == guest.PV64 && level == 4:
		return 256, 272
	case k == guest.PV32 && level == 2 && top:
		return 428, entries
	}
	return 0, 0
}

// walk follows an address down from the table in frame root, through entries that frame translates. It returns the frame that is mapped, and
// the entry that maps it.
func walk(hv Hypervisor, s *space, frame func(uint64) guest.MFN, root guest.MFN, va uint64) (m guest.MFN, pte uint64, err error) {
	m = root
	for level := s.levels; level > 0; level-- {
		page := hv.Page(m)
		if page == nil {
			return guest.InvalidMFN, 0, fmt.Errorf("address %#x: the L%d in frame %#x is not the guest's", va, level, uint64(m))
		}
		if pte = le.Uint64(page[8*s.slot(va, level):]); pte&ptePresent == 0 {
			return guest.InvalidMFN, 0, fmt.Errorf("address %#x: not mapped at level %d", va, level)
		}
		m = frame(pte & pteFrameMask >> guest.PageShift)
	}
	return m, pte, nil
}

// The frame numbers under which a table's digest knows what is no page of the guest's RAM.
const (
	digestShared  = 1<<40 - 1
	digestForeign = 1<<40 - 2
)

// entryDigest is what one entry adds to its table's digest: the table as the stream would carry it, PFNs in place of
// frames, so that it stays the same wherever the guest is.
func (k *Kernel) entryDigest(i int, pte uint64) uint32 {
	if pte == 0 {
		return 0
	}
	norm := pte
	if pte&ptePresent != 0 {
		norm = pte&^pteFrameMask | k.entryPFN(pte)<<guest.PageShift
	}
	h := mix(uint64(i)+1, norm)
	return uint32(h ^ h>>32)
}

// entryPFN is the page that a present entry maps, or one of the numbers above.
func (k *Kernel) entryPFN(pte uint64) uint64 {
	n := pte & pteFrameMask >> guest.PageShift
	if !k.Kind.PV() {
		return n
	}
	if guest.MFN(n) == k.sharedMFN {
		return digestShared
	}
	if p, ok := k.owns(guest.MFN(n)); ok {
		return uint64(p)
	}
	return digestForeign
}

// tableDigest is the digest of a whole table, without the entries that are Xen's.
func (k *Kernel) tableDigest(table guest.PFN, level int, page []byte) (d uint32) {
	from, to := xenSlots(k.Kind, level, k.topL2 == table)
	for i := range entries {
		if i >= from && i < to {
			continue
		}
		d ^= k.entryDigest(i, le.Uint64(page[8*i:]))
	}
	return d
}

// entry makes an entry that maps page p.
func (k *Kernel) entry(p guest.PFN, flags uint64) uint64 {
	if k.Kind.PV() {
		return uint64(k.frame(p))<<guest.PageShift | flags
	}
	return uint64(p)<<guest.PageShift | flags
}

// lookup finds the table of a level, and the slot in it, that an address goes through.
func (k *Kernel) lookup(va uint64, level int) (table guest.PFN, slot int, err error) {
	table = k.Root
	for l := k.space.levels; l > level; l-- {
		page := k.page(table)
		if page == nil {
			return 0, 0, fmt.Errorf("address %#x: the L%d at pfn %#x has no frame", va, l, uint64(table))
		}
		pte := le.Uint64(page[8*k.space.slot(va, l):])
		if pte&ptePresent == 0 {
			return 0, 0, fmt.Errorf("address %#x: not mapped at level %d", va, l)
		}
		table = guest.PFN(k.entryPFN(pte))
	}
	return table, k.space.slot(va, level), nil
}

// setPTE changes an entry of a table in use.
func (c *cpu) setPTE(table guest.PFN, slot int, pte uint64) error {
	k := c.k
	k.mmu.Lock()
	defer k.mmu.Unlock()
	m := k.frame(table)
	page := k.hv.Page(m)
	if page == nil {
		return fmt.Errorf("page table at pfn %#x has no frame", uint64(table))
	}
	old := le.Uint64(page[8*slot:])
	d := k.entryDigest(slot, old) ^ k.entryDigest(slot, pte)
	if k.Kind.PV() {
		if err := k.hv.WritePTE(m, slot, pte); err != nil {
			return fmt.Errorf("entry %d of the page table at pfn %#x: %w", slot, uint64(table), err)
		}
	} else {
		le.PutUint64(page[8*slot:], pte)
		k.hv.Wrote(m)
	}
	r := k.record(table)
	r.setDigest(r.digest() ^ d)
	c.count(table, r)
	return nil
}

// setDirect changes what the direct map says of page p: its rights, or with flags 0 whether it is there. Pages that
// are not in the direct map have nothing to change.
func (c *cpu) setDirect(p guest.PFN, flags uint64) error {
	va, ok := c.k.space.directAddr(p)
	if !ok || !c.k.Kind.PV() {
		return nil
	}
	table, slot, err := c.k.lookup(va, 1)
	if err != nil {
		return err
	}
	pte := uint64(0)
	if flags != 0 {
		pte = c.k.entry(p, flags)
	}
	return c.setPTE(table, slot, pte)
}
