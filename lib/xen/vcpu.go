package xen

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// The sizes of vcpu_guest_context. Xen may write the larger whatever the domain.
const (
	contextSize64 = 5168
	contextSize32 = 2800
)

// AddressSize is a PV domain's word size in bits.
func (h *Host) AddressSize(_ context.Context, id guest.DomID) (int, error) {
	d, err := h.domctl(getAddressSize, id, 0)
	if err != nil {
		return 0, err
	}
	defer d.free()
	if err := d.call(); err != nil {
		return 0, err
	}
	return int(le.Uint32(d.u)), nil
}

// SetAddressSize changes it while the domain has no frames.
func (h *Host) SetAddressSize(_ context.Context, id guest.DomID, bits int) error {
	return detail(h.order(setAddressSize, id, func(u []byte) { le.PutUint32(u, uint32(bits)) }), "%d bits", bits)
}

// contextSize is the size of a domain's vCPU contexts: HVM domains have the larger.
func (h *Host) contextSize(ctx context.Context, id guest.DomID) (int, error) {
	bits, err := h.AddressSize(ctx, id)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return contextSize64, nil
	case err == nil && bits == 32:
		return contextSize32, nil
	}
	return contextSize64, err
}

// VCPUOnline reports whether vCPU n is up.
func (h *Host) VCPUOnline(_ context.Context, id guest.DomID, n uint32) (bool, error) {
	d, err := h.domctl(getVCPUInfo, id, 0)
	if err != nil {
		return false, err
	}
	defer d.free()
	le.PutUint32(d.u, n)
	if err := d.call(); err != nil {
		return false, detail(err, "vCPU %d", n)
	}
	return d.u[4] != 0, nil
}

// VCPUContext is a vCPU's vcpu_guest_context.
func (h *Host) VCPUContext(ctx context.Context, id guest.DomID, n uint32) ([]byte, error) {
	size, err := h.contextSize(ctx, id)
	if err != nil {
		return nil, err
	}
	d, err := h.domctl(getVCPUContext, id, contextSize64)
	if err != nil {
		return nil, err
	}
	defer d.free()
	le.PutUint32(d.u, n)
	b := d.buffer(8, contextSize64)
	if err := d.call(); err != nil {
		return nil, detail(err, "vCPU %d", n)
	}
	return bytes.Clone(b[:size]), nil
}

// SetVCPUContext loads one.
func (h *Host) SetVCPUContext(ctx context.Context, id guest.DomID, n uint32, c []byte) error {
	size, err := h.contextSize(ctx, id)
	if err != nil {
		return err
	}
	if len(c) != size {
		return fmt.Errorf("vCPU %d of domain %d: a context of %d octets, want %d", n, id, len(c), size)
	}
	full := make([]byte, contextSize64) // Xen reads as much whatever the domain
	copy(full, c)
	return h.vcpuBuffer(setVCPUContext, id, n, 8, full, nil)
}

// extendedSize is how much of the union xen_domctl_ext_vcpucontext can take.
const extendedSize = domctlSize - domctlHeader

// VCPUExtended is xen_domctl_ext_vcpucontext as far as its own size field says.
func (h *Host) VCPUExtended(_ context.Context, id guest.DomID, n uint32) ([]byte, error) {
	d, err := h.domctl(getExtVCPUContext, id, 0)
	if err != nil {
		return nil, err
	}
	defer d.free()
	le.PutUint32(d.u, n)
	if err := d.call(); err != nil {
		return nil, detail(err, "vCPU %d", n)
	}
	size := le.Uint32(d.u[4:])
	if size > extendedSize {
		return nil, fmt.Errorf("%v of domain %d: vCPU %d: Xen tells %d octets, more than fit", getExtVCPUContext, id, n, size)
	}
	return bytes.Clone(d.u[:size]), nil
}

// SetVCPUExtended loads one, whose own fields must agree with n and its length.
func (h *Host) SetVCPUExtended(_ context.Context, id guest.DomID, n uint32, ext []byte) error {
	if len(ext) < 8 || len(ext) > extendedSize {
		return fmt.Errorf("vCPU %d of domain %d: extended state of %d octets, want 8 to %d", n, id, len(ext), extendedSize)
	}
	if v, size := le.Uint32(ext), le.Uint32(ext[4:]); v != n || int(size) > len(ext) {
		return fmt.Errorf("vCPU %d of domain %d: extended state of %d octets says that it is of vCPU %d and %d octets", n, id, len(ext), v, size)
	}
	return detail(h.order(setExtVCPUContext, id, func(u []byte) { copy(u, ext) }), "vCPU %d", n)
}

// VCPUXSave is xcr0, xcr0_accum and the XSAVE image.
func (h *Host) VCPUXSave(_ context.Context, id guest.DomID, n uint32) ([]byte, error) {
	ask := func(mask, size uint64) (uint64, []byte, error) {
		d, err := h.domctl(getVCPUExtState, id, int(size))
		if err != nil {
			return 0, nil, err
		}
		defer d.free()
		le.PutUint32(d.u, n)
		le.PutUint64(d.u[8:], mask)
		le.PutUint64(d.u[16:], size)
		b := d.buffer(24, int(size))
		if err := d.call(); err != nil {
			return 0, nil, detail(err, "vCPU %d", n)
		}
		if size == 0 {
			return le.Uint64(d.u[8:]), make([]byte, le.Uint64(d.u[16:])), nil
		}
		return mask, bytes.Clone(b[:min(size, le.Uint64(d.u[16:]))]), nil
	}
	mask, room, err := ask(0, 0) // Xen tells what there can be
	if err != nil || mask == 0 || len(room) == 0 {
		return nil, err
	}
	_, b, err := ask(mask, uint64(len(room)))
	return b, err
}

// SetVCPUXSave loads one.
func (h *Host) SetVCPUXSave(_ context.Context, id guest.DomID, n uint32, xsave []byte) error {
	if len(xsave) < 16 {
		return fmt.Errorf("vCPU %d of domain %d: XSAVE state of %d octets, want at least 16", n, id, len(xsave))
	}
	return h.vcpuBuffer(setVCPUExtState, id, n, 24, xsave, func(u []byte) {
		le.PutUint64(u[8:], le.Uint64(xsave)) // xfeature_mask, which Xen ignores
		le.PutUint64(u[16:], uint64(len(xsave)))
	})
}

// sizeofMSR is xen_domctl_vcpu_msr and xen_msr_entry: index, 0 and a value of 8 octets.
const sizeofMSR = 16

func putMSRs(b []byte, msrs []guest.MSR) {
	for i, m := range msrs {
		e := b[i*sizeofMSR:]
		le.PutUint32(e, m.Index)
		le.PutUint32(e[4:], m.Flags)
		le.PutUint64(e[8:], m.Value)
	}
}

func getMSRs(b []byte, n int) []guest.MSR {
	msrs := make([]guest.MSR, n)
	for i := range msrs {
		e := b[i*sizeofMSR:]
		msrs[i] = guest.MSR{Index: le.Uint32(e), Flags: le.Uint32(e[4:]), Value: le.Uint64(e[8:])}
	}
	return msrs
}

// VCPUMSRs are the MSRs that a PV vCPU has set.
func (h *Host) VCPUMSRs(_ context.Context, id guest.DomID, n uint32) ([]guest.MSR, error) {
	ask := func(count uint32) (uint32, []guest.MSR, error) {
		d, err := h.domctl(getVCPUMSRs, id, int(count)*sizeofMSR)
		if err != nil {
			return 0, nil, err
		}
		defer d.free()
		le.PutUint32(d.u, n)
		le.PutUint32(d.u[4:], count)
		b := d.buffer(8, int(count)*sizeofMSR)
		if err := d.call(); err != nil {
			return 0, nil, detail(err, "vCPU %d", n)
		}
		got := le.Uint32(d.u[4:])
		return got, getMSRs(b, int(min(got, count))), nil
	}
	most, _, err := ask(0)
	if err != nil || most == 0 {
		return nil, err
	}
	_, msrs, err := ask(most)
	return msrs, err
}

// SetVCPUMSRs loads them.
func (h *Host) SetVCPUMSRs(_ context.Context, id guest.DomID, n uint32, msrs []guest.MSR) error {
	b := make([]byte, len(msrs)*sizeofMSR)
	putMSRs(b, msrs)
	d, err := h.domctl(setVCPUMSRs, id, len(b))
	if err != nil {
		return err
	}
	defer d.free()
	le.PutUint32(d.u, n)
	le.PutUint32(d.u[4:], uint32(len(msrs)))
	copy(d.buffer(8, len(b)), b)
	if err := d.call(); err != nil {
		if bad := le.Uint32(d.u[4:]); int(bad) < len(msrs) {
			return detail(err, "vCPU %d, MSR %#x", n, msrs[bad].Index)
		}
		return detail(err, "vCPU %d", n)
	}
	return nil
}

// Pin pins page tables of a PV domain, in order. An operation of mmuext_op is 24 octets: the command, which is the level
// less one, and the frame at 8.
func (h *Host) Pin(_ context.Context, id guest.DomID, ops []guest.PinOp) error {
	for len(ops) > 0 {
		n := min(len(ops), maxBatch)
		if err := h.pin(id, ops[:n]); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}

func (h *Host) pin(id guest.DomID, ops []guest.PinOp) error {
	const size = 24
	a, err := h.memory.take(size * len(ops))
	if err != nil {
		return err
	}
	defer a.free()
	b := a.get(size * len(ops))
	for i, op := range ops {
		if op.Level < 1 || op.Level > 4 {
			return fmt.Errorf("pin frame %#x of domain %d: there is no page table of level %d", uint64(op.MFN), id, op.Level)
		}
		le.PutUint32(b[i*size:], uint32(op.Level-1))
		le.PutUint64(b[i*size+8:], uint64(op.MFN))
	}
	_, err = h.dev.call(callMMUExtOp, address(b), uint64(len(ops)), 0, uint64(id))
	return detail(fail("MMUEXT_PIN_TABLE", id, err), "one of %d page tables", len(ops))
}
