package xen

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// Flags of xen_domctl_createdomain (XEN_DOMCTL_CDF_*).
const (
	createHVM = 1 << 0
	createHAP = 1 << 1
)

// What libxl gives a domain that its owner says nothing of.
const (
	defaultEvtchnPort = 1023
	defaultGrants     = 64 // frames; needed only where Xen has no default of its own
	defaultMaptrack   = 1024
)

// Create makes a domain, paused and without memory, with event channels for xenstore and console, and its first nodes
// in xenstore. Devices and all else that a toolstack knows it has none of.
func (h *Host) Create(ctx context.Context, spec guest.Spec) (guest.DomID, error) {
	if spec.VCPUs == 0 {
		return 0, errors.New("a domain needs at least one vCPU")
	}
	id, err := h.createDomain(spec)
	if err != nil {
		return 0, err
	}
	if err := h.furnish(ctx, id, spec); err != nil {
		return 0, errors.Join(err, h.Destroy(context.WithoutCancel(ctx), id))
	}
	return id, nil
}

// createDomain asks for a domain with the best that the host may offer, then for less: Xen says only that something
// was too much.
func (h *Host) createDomain(spec guest.Spec) (guest.DomID, error) {
	haps := []uint32{0}
	if !spec.Kind.PV() {
		haps = []uint32{createHVM | createHAP, createHVM}
	}
	var first error
	for _, flags := range haps {
		for _, grants := range []uint32{2, 1} { // the highest version of grant tables
			id, err := h.createWith(spec, flags, grants)
			if err == nil {
				return id, nil
			}
			if first == nil {
				first = err
			}
			if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENODEV) {
				return 0, err
			}
		}
	}
	return 0, fmt.Errorf("%v domain: %w", spec.Kind, first)
}

func (h *Host) createWith(spec guest.Spec, flags, grants uint32) (guest.DomID, error) {
	d, err := h.domctl(createDomain, domAny, 0)
	if err != nil {
		return 0, err
	}
	defer d.free()
	h.l.create.encode(d.u, spec, flags, grants)
	if err := d.call(); err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.Domain = noDomain
		}
		return 0, err
	}
	return guest.DomID(le.Uint16(d.op[8:])), nil
}

// encode writes a xen_domctl_createdomain.
func (l *createLayout) encode(u []byte, spec guest.Spec, flags, grants uint32) {
	copy(u[4:20], spec.UUID[:])
	le.PutUint32(u[20:], flags)
	put := func(off int, v uint32) {
		if off != 0 {
			le.PutUint32(u[off:], v)
		}
	}
	put(l.maxVCPUs, spec.VCPUs)
	put(l.maxEvtchn, defaultEvtchnPort)
	put(l.maxGrants, 0xFFFFFFFF) // Xen's default
	put(l.maxMaptrack, 0xFFFFFFFF)
	put(l.grantOpts, grants)
	switch spec.Kind {
	case guest.HVM:
		put(l.emulation, emulationHVM)
	case guest.PVH:
		put(l.emulation, emulationPVH)
	}
}

// furnish gives a new domain its limits, event channels and nodes.
func (h *Host) furnish(ctx context.Context, id guest.DomID, spec guest.Spec) error {
	u32 := func(v uint32) func([]byte) { return func(u []byte) { le.PutUint32(u, v) } }
	if err := h.order(maxVCPUs, id, u32(spec.VCPUs)); err != nil {
		return err
	}
	if h.l.create.maxGrants == 0 {
		err := h.order(setGnttabLimits, id, func(u []byte) {
			le.PutUint32(u, defaultGrants)
			le.PutUint32(u[4:], defaultMaptrack)
		})
		if err != nil {
			return err
		}
	}
	kib := spec.MaxPages * (guest.PageSize / 1024)
	if err := h.order(maxMem, id, func(u []byte) { le.PutUint64(u, kib) }); err != nil {
		return err
	}
	if err := h.Reserve(ctx, id, spec.Needs()); err != nil {
		return err
	}
	if spec.Kind == guest.PV32 {
		if err := h.SetAddressSize(ctx, id, 32); err != nil {
			return err
		}
	}
	if !spec.Kind.PV() {
		if err := h.setPagingMemory(id, spec); err != nil {
			return err
		}
	}
	var p ports
	for _, port := range []*uint32{&p.store, &p.console} {
		var err error
		if *port, err = h.allocUnbound(id); err != nil {
			return err
		}
	}
	h.mu.Lock()
	h.ports[id] = p
	h.mu.Unlock()
	return h.announce(ctx, id, spec)
}

// setPagingMemory gives an HVM domain what Xen keeps its second-level page tables in, as much as libxl does: 1 MiB for
// each vCPU, and 8 octets for each page of memory.
func (h *Host) setPagingMemory(id guest.DomID, spec guest.Spec) error {
	const mib = 1 << 20
	size := (uint64(spec.VCPUs)*mib + spec.MaxPages*8 + mib - 1) &^ (mib - 1)
	if h.release.AtLeast(4, 17) {
		err := h.order(setPagingMempoolSize, id, func(u []byte) { le.PutUint64(u, size) })
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
			return detail(err, "%d octets", size)
		}
	}
	return detail(h.order(shadowOp, id, func(u []byte) {
		le.PutUint32(u, shadowSetAllocation)
		le.PutUint32(u[8:], uint32(size/mib))
	}), "SET_ALLOCATION, %d MiB", size/mib)
}

// allocUnbound makes an event channel of domain id's that the control domain may bind (EVTCHNOP_alloc_unbound). The
// structure is 8 octets: dom u16, remote_dom u16, port u32.
func (h *Host) allocUnbound(id guest.DomID) (uint32, error) {
	const cmd = 6
	a, err := h.memory.take(64)
	if err != nil {
		return 0, err
	}
	defer a.free()
	op := a.get(8)
	le.PutUint16(op, uint16(id))
	if _, err := h.dev.call(callEventChannel, cmd, address(op)); err != nil {
		return 0, fail("EVTCHNOP_alloc_unbound", id, err)
	}
	return le.Uint32(op[4:]), nil
}
