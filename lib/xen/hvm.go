package xen

import (
	"bytes"
	"context"

	"xenferry/lib/guest"
)

// Commands of hvm_op (HVMOP_*).
const (
	hvmSetParam = 0
	hvmGetParam = 1
)

// HVMContext is the whole of an HVM domain's state beside memory and parameters.
func (h *Host) HVMContext(_ context.Context, id guest.DomID) ([]byte, error) {
	ask := func(size int) ([]byte, error) {
		d, err := h.domctl(getHVMContext, id, size)
		if err != nil {
			return nil, err
		}
		defer d.free()
		le.PutUint32(d.u, uint32(size))
		b := d.buffer(8, size)
		if err := d.call(); err != nil {
			return nil, err
		}
		n := int(le.Uint32(d.u))
		if size == 0 {
			return make([]byte, n), nil
		}
		return bytes.Clone(b[:min(n, size)]), nil
	}
	room, err := ask(0) // Xen tells how much there can be
	if err != nil || len(room) == 0 {
		return nil, err
	}
	return ask(len(room))
}

// SetHVMContext loads one.
func (h *Host) SetHVMContext(_ context.Context, id guest.DomID, blob []byte) error {
	d, err := h.domctl(setHVMContext, id, len(blob))
	if err != nil {
		return err
	}
	defer d.free()
	le.PutUint32(d.u, uint32(len(blob)))
	copy(d.buffer(8, len(blob)), blob)
	return detail(d.call(), "%d octets; the host's Xen or processor may be older than the source's", len(blob))
}

// hvmParam makes an hvm_op on a xen_hvm_param, 16 octets: domid u16, index u32 at 4, value u64 at 8.
func (h *Host) hvmParam(name string, cmd uint64, id guest.DomID, index uint32, value uint64) (uint64, error) {
	a, err := h.memory.take(64)
	if err != nil {
		return 0, err
	}
	defer a.free()
	op := a.get(16)
	le.PutUint16(op, uint16(id))
	le.PutUint32(op[4:], index)
	le.PutUint64(op[8:], value)
	if _, err := h.dev.call(callHVMOp, cmd, address(op)); err != nil {
		return 0, detail(fail(name, id, err), "parameter %d, value %#x", index, value)
	}
	return le.Uint64(op[8:]), nil
}

// HVMParam is one HVM parameter.
func (h *Host) HVMParam(_ context.Context, id guest.DomID, index uint32) (uint64, error) {
	return h.hvmParam("HVMOP_get_param", hvmGetParam, id, index, 0)
}

// SetHVMParam sets one.
func (h *Host) SetHVMParam(_ context.Context, id guest.DomID, index uint32, value uint64) error {
	_, err := h.hvmParam("HVMOP_set_param", hvmSetParam, id, index, value)
	return err
}

// TSC is the domain's time stamp counter.
func (h *Host) TSC(_ context.Context, id guest.DomID) (guest.TSC, error) {
	d, err := h.domctl(getTSCInfo, id, 0)
	if err != nil {
		return guest.TSC{}, err
	}
	defer d.free()
	if err := d.call(); err != nil {
		return guest.TSC{}, err
	}
	return guest.TSC{Mode: le.Uint32(d.u), KHz: le.Uint32(d.u[4:]), Incarnation: le.Uint32(d.u[8:]), NSec: le.Uint64(d.u[16:])}, nil
}

// SetTSC sets it. Xen counts the incarnation up.
func (h *Host) SetTSC(_ context.Context, id guest.DomID, t guest.TSC) error {
	return detail(h.order(setTSCInfo, id, func(u []byte) {
		le.PutUint32(u, t.Mode)
		le.PutUint32(u[4:], t.KHz)
		le.PutUint32(u[8:], t.Incarnation)
		le.PutUint64(u[16:], t.NSec)
	}), "mode %d", t.Mode)
}

// sizeofLeaf is xen_cpuid_leaf_t: leaf, subleaf, a, b, c, d.
const sizeofLeaf = 24

// CPUPolicy is what the domain sees of its processor (from 4.12).
func (h *Host) CPUPolicy(_ context.Context, id guest.DomID) (guest.CPUPolicy, error) {
	ask := func(leaves, msrs uint32) (guest.CPUPolicy, uint32, uint32, error) {
		d, err := h.domctl(getCPUPolicy, id, int(leaves)*sizeofLeaf+int(msrs)*sizeofMSR)
		if err != nil {
			return guest.CPUPolicy{}, 0, 0, err
		}
		defer d.free()
		le.PutUint32(d.u, leaves)
		le.PutUint32(d.u[4:], msrs)
		l, m := d.buffer(8, int(leaves)*sizeofLeaf), d.buffer(16, int(msrs)*sizeofMSR)
		if err := d.call(); err != nil {
			return guest.CPUPolicy{}, 0, 0, err
		}
		gotLeaves, gotMSRs := le.Uint32(d.u), le.Uint32(d.u[4:])
		p := guest.CPUPolicy{Leaves: getLeaves(l, int(min(gotLeaves, leaves))), MSRs: getMSRs(m, int(min(gotMSRs, msrs)))}
		return p, gotLeaves, gotMSRs, nil
	}
	_, leaves, msrs, err := ask(0, 0)
	if err != nil {
		return guest.CPUPolicy{}, err
	}
	p, _, _, err := ask(leaves, msrs)
	return p, err
}

func getLeaves(b []byte, n int) []guest.CPUIDLeaf {
	leaves := make([]guest.CPUIDLeaf, n)
	for i := range leaves {
		e := b[i*sizeofLeaf:]
		leaves[i] = guest.CPUIDLeaf{
			Leaf: le.Uint32(e), Subleaf: le.Uint32(e[4:]),
			A: le.Uint32(e[8:]), B: le.Uint32(e[12:]), C: le.Uint32(e[16:]), D: le.Uint32(e[20:]),
		}
	}
	return leaves
}

func putLeaves(b []byte, leaves []guest.CPUIDLeaf) {
	for i, l := range leaves {
		for j, v := range [...]uint32{l.Leaf, l.Subleaf, l.A, l.B, l.C, l.D} {
			le.PutUint32(b[i*sizeofLeaf+4*j:], v)
		}
	}
}

// SetCPUPolicy merges p into the domain's (from 4.13).
func (h *Host) SetCPUPolicy(_ context.Context, id guest.DomID, p guest.CPUPolicy) error {
	const none = 0xFFFFFFFF
	d, err := h.domctl(setCPUPolicy, id, len(p.Leaves)*sizeofLeaf+len(p.MSRs)*sizeofMSR)
	if err != nil {
		return err
	}
	defer d.free()
	le.PutUint32(d.u, uint32(len(p.Leaves)))
	le.PutUint32(d.u[4:], uint32(len(p.MSRs)))
	putLeaves(d.buffer(8, len(p.Leaves)*sizeofLeaf), p.Leaves)
	putMSRs(d.buffer(16, len(p.MSRs)*sizeofMSR), p.MSRs)
	for off := 24; off <= 32; off += 4 {
		le.PutUint32(d.u[off:], none)
	}
	if err := d.call(); err != nil {
		leaf, subleaf, msr := le.Uint32(d.u[24:]), le.Uint32(d.u[28:]), le.Uint32(d.u[32:])
		switch {
		case leaf != none:
			return detail(err, "CPUID leaf %#x, subleaf %#x", leaf, subleaf)
		case msr != none:
			return detail(err, "MSR %#x", msr)
		}
		return err
	}
	return nil
}
