package xen

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// A grant entry of version 1 is 8 octets: flags u16, domid u16, frame u32.
const (
	grantEntry   = 8
	grantPermit  = 1 // GTF_permit_access
	grantConsole = 0 // GNTTAB_RESERVED_CONSOLE
	grantStore   = 1 // GNTTAB_RESERVED_XENSTORE

	resourceGrantTable = 1 // XENMEM_resource_grant_table
	spaceGrantTable    = 1 // XENMAPSPACE_grant_table
)

// SeedGrants writes grant entries 0 (console) and 1 (xenstore) of a new domain, both towards domain 0. Its grant table is
// mapped as a resource (Xen 4.12, Linux 4.18), else by its frames.
func (h *Host) SeedGrants(ctx context.Context, id guest.DomID, console, store guest.GFN) error {
	mem, err := h.dev.view(1, guest.ReadWrite)
	if err != nil {
		return err
	}
	err = h.dev.mapResource(id, resourceGrantTable, 0, 0, mem)
	if err == nil {
		seed(mem, console, store)
	}
	err = errors.Join(err, unview(mem))
	switch e := errnoOf(err); e {
	case 0:
		return err
	case unix.ENOTTY, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS:
		h.log.Debug().Err(err).Msg("the grant table cannot be mapped as a resource")
		return h.seedByFrame(ctx, id, console, store)
	}
	return fail("IOCTL_PRIVCMD_MMAP_RESOURCE", id, err)
}

// seed writes the two entries, the flags last: they make an entry valid.
func seed(table []byte, console, store guest.GFN) {
	for _, e := range []struct {
		slot int
		gfn  guest.GFN
	}{{grantConsole, console}, {grantStore, store}} {
		if e.gfn == guest.InvalidGFN {
			continue
		}
		b := table[e.slot*grantEntry:][:grantEntry]
		le.PutUint16(b[2:], 0)
		le.PutUint32(b[4:], uint32(e.gfn))
		le.PutUint16(b, grantPermit)
	}
}

// seedByFrame finds the table's first frame. One of an HVM domain has to have a GFN for as long.
func (h *Host) seedByFrame(ctx context.Context, id guest.DomID, console, store guest.GFN) (err error) {
	frame, err := h.setupTable(id)
	if err != nil {
		return err
	}
	i, err := h.info(id)
	if err != nil {
		return err
	}
	if !i.Kind.PV() {
		top, err := h.MaxGFN(ctx, id)
		if err != nil {
			return err
		}
		frame = top + 1
		if err := h.physmap("XENMEM_add_to_physmap", memAddToPhysmap, id, frame); err != nil {
			return err
		}
		defer func() {
			err = errors.Join(err, h.physmap("XENMEM_remove_from_physmap", memRemoveFromPhysmap, id, frame))
		}()
	}
	m, err := h.Map(ctx, id, []guest.GFN{frame}, guest.ReadWrite)
	if err != nil {
		return err
	}
	if _, err := m.Err(); err != nil {
		return errors.Join(fmt.Errorf("map the grant table of domain %d: %w", id, err), m.Close())
	}
	seed(m.Pages[0], console, store)
	return m.Close()
}

// setupTable makes a grant table of one frame and returns that (GNTTABOP_setup_table). The structure is 24 octets: dom
// u16, nr_frames u32 at 4, status s16 at 8, frame_list handle at 16.
func (h *Host) setupTable(id guest.DomID) (guest.GFN, error) {
	const (
		name = "GNTTABOP_setup_table"
		cmd  = 2
	)
	a, err := h.memory.take(64)
	if err != nil {
		return 0, err
	}
	defer a.free()
	op, list := a.get(24), a.get(8)
	le.PutUint16(op, uint16(id))
	le.PutUint32(op[4:], 1)
	le.PutUint64(op[16:], address(list))
	if _, err := h.dev.call(callGrantTableOp, cmd, address(op), 1); err != nil {
		return 0, fail(name, id, err)
	}
	if status := int16(le.Uint16(op[8:])); status != 0 {
		return 0, fmt.Errorf("%s of domain %d: grant status %d", name, id, status)
	}
	return guest.GFN(le.Uint64(list)), nil
}

// physmap gives the grant table's first frame a GFN, or takes that away. xen_add_to_physmap is domid u16, size u16, space
// u32 at 4, idx u64 at 8, gpfn u64 at 16; xen_remove_from_physmap domid u16, gpfn u64 at 8.
func (h *Host) physmap(name string, cmd uint64, id guest.DomID, gfn guest.GFN) error {
	a, err := h.memory.take(128)
	if err != nil {
		return err
	}
	defer a.free()
	op := a.get(24)
	le.PutUint16(op, uint16(id))
	if cmd == memAddToPhysmap {
		le.PutUint32(op[4:], spaceGrantTable)
		le.PutUint64(op[16:], uint64(gfn))
	} else {
		le.PutUint64(op[8:], uint64(gfn))
	}
	_, err = h.memoryOp(a, name, cmd, id, op)
	return err
}
