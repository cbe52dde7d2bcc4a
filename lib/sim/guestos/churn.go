package guestos

import (
	"fmt"

	"xenferry/lib/guest"
)

// churn is one step of making, changing and freeing page tables, in the vCPU's part of user space.
func (c *cpu) churn() error {
	if c.k.Kind == guest.PV64 && c.random(8) == 0 {
		return c.fork()
	}
	slot := int(c.n*userSlots + uint32(c.random(userSlots)))
	pte := le.Uint64(c.k.page(c.k.UserL2)[8*slot:])
	if pte == 0 {
		return c.mapTable(slot)
	}
	table := guest.PFN(c.k.entryPFN(pte))
	if c.random(3) == 0 {
		return c.freeTable(slot, table)
	}
	return c.change(table)
}

// target is an entry that maps a data page of the vCPU's, writable or not.
func (c *cpu) target() uint64 {
	flags := uint64(pteRO)
	if c.random(2) == 0 {
		flags = pteRW
	}
	return c.k.entry(c.uniform(), flags)
}

// change rewrites some entries of a table in use.
func (c *cpu) change(table guest.PFN) error {
	for range 4 {
		pte := c.target()
		if c.random(4) == 0 {
			pte = 0
		}
		if err := c.setPTE(table, int(c.random(entries)), pte); err != nil {
			return err
		}
	}
	return nil
}

// pooled takes a page from the vCPU's pool, or says that none is left. Pages of the pool are any vCPU's; each looks only
// at those whose index is its own, as with data, but each may put back one that is another's.
func (c *cpu) pooled() (guest.PFN, bool) {
	c.k.mmu.Lock()
	defer c.k.mmu.Unlock()
	own, n := c.own(), uint64(len(c.k.cpus))
	start := c.random(own)
	for i := range own {
		at := (start+i)%own*n + uint64(c.n)
		if c.k.recordAt(at).role() == rolePool {
			return c.k.pfn(at), true
		}
	}
	return 0, false
}

// become makes a page of the pool a page table with the given contents, as yet in no tree. From here on nobody may
// write it but the hypervisor.
func (c *cpu) become(p guest.PFN, level int, fill func(page []byte)) error {
	if err := c.setDirect(p, pteRO); err != nil {
		return err
	}
	k := c.k
	page := k.page(p)
	clear(page)
	fill(page)
	k.hv.Wrote(k.frame(p))
	r := k.record(p)
	r.setRole(roleL1 + role(level-1))
	r.setDigest(k.tableDigest(p, level, page))
	c.count(p, r)
	return nil
}

// retire makes a page table that is in no tree and not pinned a page of the pool again, and writes it.
func (c *cpu) retire(p guest.PFN) error {
	r := c.k.record(p)
	r.setDigest(0)
	if err := c.write(p); err != nil {
		return err
	}
	if err := c.setDirect(p, pteRW); err != nil {
		return err
	}
	c.k.mmu.Lock() // once it is in the pool, another vCPU may take it
	defer c.k.mmu.Unlock()
	r.setRole(rolePool)
	c.k.wroteRecord(p)
	return nil
}

// mapTable makes an L1 and hangs it into user space, pinned by itself or not.
func (c *cpu) mapTable(slot int) error {
	p, ok := c.pooled()
	if !ok {
		return c.write(c.uniform())
	}
	if err := c.become(p, 1, func(page []byte) {
		for range 64 {
			le.PutUint64(page[8*c.random(entries):], c.target())
		}
	}); err != nil {
		return err
	}
	if c.random(2) == 0 {
		if err := c.pin(p, 1); err != nil {
			return err
		}
	}
	return c.setPTE(c.k.UserL2, slot, c.k.entry(p, pteTable))
}

// freeTable takes an L1 out of user space.
func (c *cpu) freeTable(slot int, p guest.PFN) error {
	if err := c.setPTE(c.k.UserL2, slot, 0); err != nil {
		return err
	}
	if c.k.record(p).pinned() {
		if err := c.unpin(p); err != nil {
			return err
		}
	}
	return c.retire(p)
}

// fork makes the root of another address space, with the kernel's part as everywhere, or frees the one it made.
func (c *cpu) fork() error {
	if made := c.get(cpuProcess); made != 0 {
		c.set(cpuProcess, 0)
		if err := c.unpin(guest.PFN(made - 1)); err != nil {
			return err
		}
		return c.retire(guest.PFN(made - 1))
	}
	p, ok := c.pooled()
	if !ok {
		return c.write(c.uniform())
	}
	from, to := xenSlots(guest.PV64, 4, false)
	if err := c.become(p, 4, func(page []byte) {
		copy(page, c.k.page(c.k.Root))
		clear(page[8*from : 8*to])
	}); err != nil {
		return err
	}
	c.set(cpuProcess, uint64(p)+1)
	return c.pin(p, 4)
}

func (c *cpu) pin(p guest.PFN, level int) error { return c.setPinned(p, true, level) }
func (c *cpu) unpin(p guest.PFN) error          { return c.setPinned(p, false, 0) }

// setPinned pins a page table by itself or lets go of it. Only PV guests' tables are anybody's but their own.
func (c *cpu) setPinned(p guest.PFN, on bool, level int) error {
	k := c.k
	if k.Kind.PV() {
		m := k.frame(p)
		op := k.hv.Unpin
		if on {
			op = func(m guest.MFN) error { return k.hv.Pin(guest.PinOp{MFN: m, Level: level}) }
		}
		if err := op(m); err != nil {
			return fmt.Errorf("pin %v of the page table at pfn %#x: %w", on, uint64(p), err)
		}
	}
	r := k.record(p)
	r.setPinned(on)
	c.count(p, r)
	return nil
}
