package machine

import (
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// View is one domain as its own guest sees the hypervisor: it implements guestos.Hypervisor. It stays valid until the
// domain is destroyed; after that every operation fails and Page gives nil.
type View struct {
	m *Machine
	d *domain
}

// View is a domain's own view of m.
func (m *Machine) View(id guest.DomID) (v *View, err error) {
	err = m.with("view", id, func(d *domain) error { v = &View{m, d}; return nil })
	return v, err
}

// with runs f on the domain if it is still there.
func (v *View) with(op string, f func(d *domain) error) error {
	return v.m.with(op, v.d.id, func(d *domain) error {
		if d != v.d || d.dying {
			return &Error{Op: op, Domain: v.d.id, Errno: unix.ESRCH, Absent: true}
		}
		return f(d)
	})
}

// ID is the domain's number.
func (v *View) ID() guest.DomID { return v.d.id }

// Spec is what the domain was made from; its kind follows the address size. Width is 8, or 4 for PV32.
func (v *View) Spec() guest.Spec {
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	return v.d.spec
}

// Width is the size of a PV guest's word in octets.
func (v *View) Width() int { return v.Spec().Kind.Width() }

// Release is the Xen release.
func (v *View) Release() guest.Release { return v.m.release }

// Page is the memory of a frame of the domain, or nil. It takes no lock.
func (v *View) Page(f guest.MFN) []byte {
	if uint64(f) >= v.m.Frames() || v.m.frames[f].owner() != v.d.id {
		return nil
	}
	return v.m.page(f)
}

// Wrote tells the dirty log of a write to frame f, once it has happened. The kernel's own log needs no telling.
func (v *View) Wrote(f guest.MFN) {
	if v.m.log.kernel == nil && uint64(f) < v.m.Frames() {
		v.m.log.mark(f)
	}
}

// SharedInfo is a PV domain's shared_info page and its frame.
func (v *View) SharedInfo() (page []byte, f guest.MFN) {
	if v.with("shared_info of", func(d *domain) error { f = d.sharedInfo; return nil }) != nil || f == 0 {
		return nil, guest.InvalidMFN
	}
	return v.m.page(f), f
}

// Frame is the machine frame behind a PFN of an HVM domain, or InvalidMFN.
func (v *View) Frame(p guest.PFN) guest.MFN {
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	return v.d.p2m.get(guest.GFN(p))
}

// M2P is frame f's PFN as the machine's table has it.
func (v *View) M2P(f guest.MFN) guest.PFN {
	if uint64(f) >= v.m.Frames() {
		return guest.InvalidPFN
	}
	return v.m.pfn(f)
}

// Populate gets new frames at pfns, all or none, and returns them.
func (v *View) Populate(pfns []guest.PFN) (mfns []guest.MFN, err error) {
	err = v.with("populate", func(d *domain) error {
		before := d.pages
		gfns := make([]guest.GFN, len(pfns))
		for i, p := range pfns {
			gfns[i] = guest.GFN(p)
		}
		err := d.populate(gfns)
		if err != nil {
			_ = d.depopulate(gfns[:d.pages-before])
			return err
		}
		mfns = make([]guest.MFN, len(gfns))
		for i, g := range gfns {
			if mfns[i] = guest.MFN(g); !d.pv() {
				mfns[i] = d.p2m.get(g)
			}
		}
		return nil
	})
	return mfns, err
}

// Depopulate gives frames back: MFNs for a PV domain, else PFNs.
func (v *View) Depopulate(gfns []guest.GFN) error {
	return v.with("depopulate", func(d *domain) error { return d.depopulate(gfns) })
}

// WritePTE changes one entry of a page table in use, or a word of plain memory.
func (v *View) WritePTE(table guest.MFN, index int, pte uint64) error {
	return v.with("update page table of", func(d *domain) error { return d.writePTE(table, index, pte) })
}

// Shutdown records that the guest has stopped itself for reason (SCHEDOP_shutdown), as when it crashes. It may call
// this while it runs, and must not write any more then. What a suspend needs Guest.Suspend does.
func (v *View) Shutdown(reason guest.ShutdownReason) error {
	return v.with("shut down", func(d *domain) error { return d.stop(reason) })
}

// Pin validates a tree of page tables and keeps it so.
func (v *View) Pin(op guest.PinOp) error {
	return v.with("pin tables of", func(d *domain) error { return d.pinAll([]guest.PinOp{op}) })
}

// Unpin lets go of what Pin keeps.
func (v *View) Unpin(f guest.MFN) error {
	return v.with("unpin a table of", func(d *domain) error { return d.unpin(f) })
}

// PageType is a frame's type as getpageframeinfo3 tells it.
func (v *View) PageType(f guest.MFN) (t guest.PageType) {
	t = guest.XTab
	_ = v.with("page type of", func(d *domain) error {
		if d.owns(f) {
			t = v.m.frames[f].pageType()
		}
		return nil
	})
	return t
}

// VCPUContext is a vCPU's vcpu_guest_context, as Machine.VCPUContext has it.
func (v *View) VCPUContext(n uint32) (c []byte, err error) {
	err = v.with("get vCPU context of", func(d *domain) error { c, err = d.vcpuContext(n); return err })
	return c, err
}

// SetVCPUContext loads one, with all of Machine.SetVCPUContext's checks.
func (v *View) SetVCPUContext(n uint32, c []byte) error {
	return v.with("set vCPU context of", func(d *domain) error { return d.setVCPUContext(n, c) })
}

// SetVCPUExtended loads a PV vCPU's xen_domctl_ext_vcpucontext.
func (v *View) SetVCPUExtended(n uint32, ext []byte) error {
	return v.with("set extended vCPU context of", func(d *domain) error { return d.setVCPUExtended(n, ext) })
}

// SetVCPUXSave loads a PV vCPU's xcr0, xcr0_accum and XSAVE image.
func (v *View) SetVCPUXSave(n uint32, x []byte) error {
	return v.with("set vCPU XSAVE state of", func(d *domain) error { return d.setVCPUXSave(n, x) })
}

// SetVCPUMSRs loads a PV vCPU's MSRs.
func (v *View) SetVCPUMSRs(n uint32, msrs []guest.MSR) error {
	return v.with("set vCPU MSRs of", func(d *domain) error { return d.setVCPUMSRs(n, msrs) })
}

// HVMContext is an HVM domain's context as it was loaded.
func (v *View) HVMContext() (blob []byte, err error) {
	err = v.with("get HVM context of", func(d *domain) error { blob, err = d.getHVMContext(); return err })
	return blob, err
}

// SetHVMContext loads one.
func (v *View) SetHVMContext(blob []byte) error {
	return v.with("set HVM context of", func(d *domain) error { return d.setHVMContext(blob) })
}

// HVMParam is one HVM parameter.
func (v *View) HVMParam(index uint32) (value uint64, err error) {
	err = v.with("get HVM parameter of", func(d *domain) error { value, err = d.hvmParam(index); return err })
	return value, err
}

// SetHVMParam sets one.
func (v *View) SetHVMParam(index uint32, value uint64) error {
	return v.with("set HVM parameter of", func(d *domain) error { return d.setHVMParam(index, value) })
}
