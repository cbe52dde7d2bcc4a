package guestos

import (
	"fmt"

	"xenferry/lib/guest"
)

// userSlots is how many entries of the user L2 are each vCPU's own, for tables of 2 MiB of user space.
const userSlots = 8

// allocateTables makes page tables for all that the kernel maps, with no page in them yet: which pages are page tables
// must be known before the first is mapped, as those can only be mapped read-only.
func (b *builder) allocateTables() (err error) {
	if b.Root, err = b.table(b.space.levels); err != nil {
		return err
	}
	for _, r := range b.RAM {
		va := b.space.direct + uint64(r.First)<<guest.PageShift
		if va >= b.space.limit {
			break
		}
		if err := b.ensure(va, min(r.Count, (b.space.limit-va)>>guest.PageShift)); err != nil {
			return err
		}
	}
	if err := b.ensure(b.space.records, uint64(len(b.records.pages))); err != nil {
		return err
	}
	if b.UserL2, err = b.tableAt(0, 2); err != nil {
		return err
	}
	for n := range b.Online {
		if _, err := b.tableAt(uint64(n)*userSlots<<21, 1); err != nil {
			return err
		}
	}
	if !b.Kind.PV() {
		return nil
	}
	if err := b.ensure(b.space.p2m, b.P2MLeaves); err != nil {
		return err
	}
	if err := b.ensure(b.space.shared, 1); err != nil {
		return err
	}
	if b.Kind == guest.PV64 {
		if b.UserRoot, err = b.table(4); err != nil {
			return err
		}
		copy(b.page(b.UserRoot)[:8], b.page(b.Root)[:8]) // all of user space is under the first entry
	}
	if b.loose, err = b.table(1); err != nil {
		return err
	}
	return b.findTopL2()
}

// table is a new page table of a level, empty.
func (b *builder) table(level int) (guest.PFN, error) {
	p, err := b.take(roleL1 + role(level-1))
	if err == nil {
		clear(b.page(p))
	}
	return p, err
}

// tableAt is the table of a level that an address goes through, made where it is not there.
func (b *builder) tableAt(va uint64, level int) (guest.PFN, error) {
	table := b.Root
	for l := b.space.levels; l > level; l-- {
		page, at := b.page(table), 8*b.space.slot(va, l)
		if pte := le.Uint64(page[at:]); pte != 0 {
			table = guest.PFN(b.entryPFN(pte))
			continue
		}
		below, err := b.table(l - 1)
		if err != nil {
			return 0, err
		}
		le.PutUint64(page[at:], b.entry(below, b.space.tableFlags(l)))
		table = below
	}
	return table, nil
}

// ensure makes the tables for n pages at an address.
func (b *builder) ensure(va, n uint64) error {
	for end := va + n<<guest.PageShift; va < end; va = va&^(1<<21-1) + 1<<21 {
		if _, err := b.tableAt(va, 1); err != nil {
			return err
		}
	}
	return nil
}

// fillTables maps everything.
func (b *builder) fillTables() error {
	var l1 []byte
	var l1Base uint64 = 1
	mapAt := func(va, pte uint64) error {
		if base := va &^ (1<<21 - 1); base != l1Base {
			table, _, err := b.lookup(va, 1)
			if err != nil {
				return err
			}
			l1, l1Base = b.page(table), base
		}
		le.PutUint64(l1[8*b.space.slot(va, 1):], pte)
		return nil
	}
	for i, r := range b.roles {
		p := b.pfn(uint64(i))
		va, ok := b.space.directAddr(p)
		if !ok {
			continue
		}
		if err := mapAt(va, b.entry(p, b.rights(p, r))); err != nil {
			return err
		}
	}
	for i, m := range b.records.frames {
		if err := mapAt(b.space.records+uint64(i)<<guest.PageShift, b.entry(b.hv.M2P(m), pteRW)); err != nil {
			return err
		}
	}
	for n := range b.Online {
		for i, p := range b.text {
			if err := mapAt(uint64(n)*userSlots<<21+uint64(i)<<guest.PageShift, b.entry(p, pteRO)); err != nil {
				return err
			}
		}
	}
	if !b.Kind.PV() {
		return nil
	}
	for i, m := range b.p2m.frames {
		if err := mapAt(b.space.p2m+uint64(i)<<guest.PageShift, b.entry(b.hv.M2P(m), pteRW)); err != nil {
			return err
		}
	}
	for i, p := range b.text {
		le.PutUint64(b.page(b.loose)[8*i:], b.entry(p, pteRO))
	}
	return mapAt(b.space.shared, uint64(b.sharedMFN)<<guest.PageShift|pteRW)
}

// rights is how a page is in the direct map: Xen lets nobody write page tables and descriptor tables.
func (b *builder) rights(p guest.PFN, r role) uint64 {
	if _, gdt := b.gdtIndex(p); b.Kind.PV() && (gdt || r.level() > 0) {
		return pteRO
	}
	return pteRW
}

// pinAll pins page tables as Linux does: the roots, and some of the L1s in them by themselves.
func (b *builder) pinAll() error {
	pin := func(p guest.PFN, level int) error {
		if err := b.hv.Pin(guest.PinOp{MFN: b.frame(p), Level: level}); err != nil {
			return fmt.Errorf("pin the L%d at pfn %#x: %w", level, uint64(p), err)
		}
		b.record(p).setPinned(true)
		b.wroteRecord(p)
		return nil
	}
	if err := pin(b.Root, b.space.levels); err != nil {
		return err
	}
	if b.Kind == guest.PV64 {
		if err := pin(b.UserRoot, 4); err != nil {
			return err
		}
	}
	if err := pin(b.loose, 1); err != nil {
		return err
	}
	for n := uint32(0); n < b.Online; n += 2 {
		table, _, err := b.lookup(uint64(n)*userSlots<<21, 1)
		if err != nil {
			return err
		}
		if err := pin(table, 1); err != nil {
			return err
		}
	}
	return nil
}
