package xen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

const (
	memGetPodTarget = 17
	memClaimPages   = 24
)

// Saveable is why domain id cannot be saved whatever is tried, or nil: devices that are passed through to it, or memory
// that is populated on demand, of which a stream knows nothing.
func (h *Host) Saveable(ctx context.Context, id guest.DomID) error {
	info, err := h.Info(ctx, id)
	if err != nil {
		return err
	}
	if err := h.noPassthrough(ctx, id); err != nil {
		return err
	}
	if info.Kind.PV() {
		return nil
	}
	missing, err := h.podEntries(id)
	if err == nil && missing > 0 {
		err = fmt.Errorf("domain %d has %d pages that are to be populated on demand: let it balloon down to its target first", id, missing)
	}
	return err
}

// noPassthrough looks for PCI devices of the domain's.
func (h *Host) noPassthrough(ctx context.Context, id guest.DomID) error {
	xs, err := h.xenstore(ctx)
	if err != nil {
		return err
	}
	devices, err := xs.Directory(ctx, fmt.Sprintf("/local/domain/0/backend/pci/%d", id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(devices) > 0:
		return fmt.Errorf("domain %d has PCI devices passed through to it, whose state cannot be moved: detach them first", id)
	}
	return nil
}

// podEntries is how many pages of an HVM domain are populated on demand and not yet there (XENMEM_get_pod_target). The
// structure, xen_pod_target, is 40 octets: target_pages, tot_pages, pod_cache_pages and pod_entries u64 each, domid u16.
func (h *Host) podEntries(id guest.DomID) (uint64, error) {
	const name = "XENMEM_get_pod_target"
	a, err := h.memory.take(40 + 64)
	if err != nil {
		return 0, fail(name, id, err)
	}
	defer a.free()
	op := a.get(40)
	le.PutUint16(op[32:], uint16(id))
	if _, err := h.memoryOp(a, name, memGetPodTarget, id, op); err != nil {
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
			return 0, nil // a hypervisor built without it has none
		}
		return 0, err
	}
	return le.Uint64(op[24:]), nil
}

// Reserve sets pages aside for a domain: so many are not free if that is refused. What the domain does not take of them is given
// back by a Reserve of 0, or when it is introduced or destroyed.
func (h *Host) Reserve(_ context.Context, id guest.DomID, pages uint64) error {
	err := h.claim(id, pages)
	if errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("the host has too little free memory for a domain of %d MiB: %w", pages>>8, err)
	}
	if err != nil { // as of a Xen that takes no claims, or of a domain that has one: what is missing shows later
		h.log.Debug().Err(err).Msg("no memory is set aside")
	}
	return nil
}

// claim is XENMEM_claim_pages, whose structure is a xen_memory_reservation of so many extents.
func (h *Host) claim(id guest.DomID, pages uint64) error {
	const name = "XENMEM_claim_pages"
	a, err := h.memory.take(32 + 64)
	if err != nil {
		return fail(name, id, err)
	}
	defer a.free()
	op := a.get(32)
	le.PutUint64(op[8:], pages)
	le.PutUint16(op[24:], uint16(id))
	_, err = h.memoryOp(a, name, memClaimPages, id, op)
	return err
}
