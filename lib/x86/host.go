// Package x86 knows what the guests of an x86 host need beyond their pages: page tables, P2M and frame numbers in
// vCPU contexts for PV, the order of parameters and context for HVM and PVH. It works over any Host, so that the same
// lines run on Xen and on the simulator.
package x86

import (
	"context"

	"xenferry/lib/guest"
)

// Host is what the guest types ask of a hypervisor, in Xen's own words: each method is one hypercall or mapping
// operation, possibly cut into several calls by the implementation where Xen limits a batch. A domain that is not
// there is an error that matches fs.ErrNotExist. Errors name the operation, the domain and what the host said.
// lib/xen and lib/sim provide it and import nothing of this package.
type Host interface {
	// Release is the hypervisor's release (XENVER_version).
	Release() guest.Release

	// Info tells about one domain (XEN_DOMCTL_getdomaininfo).
	Info(ctx context.Context, id guest.DomID) (guest.Info, error)

	// M2P is the machine-to-guest table, the same slice at every call.
	M2P(ctx context.Context) (guest.M2P, error)

	// CompatM2P is the first frame of the M2P that 32-bit PV guests see (XENMEM_machphys_compat_mfn_list).
	CompatM2P(ctx context.Context) (guest.MFN, error)

	// MaxGFN is the highest GFN of an HVM domain (XENMEM_maximum_gpfn).
	MaxGFN(ctx context.Context, id guest.DomID) (guest.GFN, error)

	// PageTypes sets types[i] to the type of gfns[i] (XEN_DOMCTL_getpageframeinfo3). A frame that is not there, not
	// RAM or not the domain's is guest.XTab, not an error. A page table that is neither validated nor pinned is
	// guest.NoTab. guest.InvalidGFN is allowed.
	PageTypes(ctx context.Context, id guest.DomID, gfns []guest.GFN, types []guest.PageType) error

	// Map maps gfns in order. A frame that cannot be mapped is a nil page with its reason in Errs; the error is for
	// a call that failed as a whole. A PV domain's shared_info can be mapped by its frame.
	Map(ctx context.Context, id guest.DomID, gfns []guest.GFN, prot guest.Prot) (*guest.Mapping, error)

	// Populate gives the domain one new frame for each of gfns, or fails (XENMEM_populate_physmap). gfns holds PFNs
	// in; for a PV domain each is replaced by the MFN it got, for an HVM domain they stay. Contents are unspecified.
	Populate(ctx context.Context, id guest.DomID, gfns []guest.GFN) error

	// Depopulate takes frames back (XENMEM_decrease_reservation).
	Depopulate(ctx context.Context, id guest.DomID, gfns []guest.GFN) error

	// SetLogDirty begins or ends the log of a domain's writes (XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY and _OFF).
	// Beginning one that is on is an error; ending one that is off is not.
	SetLogDirty(ctx context.Context, id guest.DomID, on bool) error

	// Dirty sets dirty to the frames written since the log began or was last cleaned, for frames 0 to frames-1
	// (XEN_DOMCTL_SHADOW_OP_CLEAN, or _PEEK unless clean is set), and returns how many there are. final also marks
	// what the hypervisor itself can still write (XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL); the domain must be suspended.
	Dirty(ctx context.Context, id guest.DomID, frames uint64, dirty guest.Bitmap, clean, final bool) (uint64, error)

	// AddressSize is a PV domain's word size in bits, 32 or 64; SetAddressSize changes it while the domain has no frames.
	AddressSize(ctx context.Context, id guest.DomID) (int, error)
	SetAddressSize(ctx context.Context, id guest.DomID, bits int) error

	// Pin pins page tables of a PV domain (MMUEXT_PIN_L1_TABLE to _L4_TABLE), in order, up to the first that Xen refuses.
	Pin(ctx context.Context, id guest.DomID, ops []guest.PinOp) error

	// VCPUOnline reports whether vCPU n is up (XEN_DOMCTL_getvcpuinfo). A vCPU that is not there is an error.
	VCPUOnline(ctx context.Context, id guest.DomID, n uint32) (bool, error)

	// VCPUContext is a vCPU's vcpu_guest_context: 5168 octets, or 2800 for a 32-bit PV domain; SetVCPUContext loads
	// one. Further state of PV vCPUs comes in the three forms below, each opaque, each empty where there is none.
	VCPUContext(ctx context.Context, id guest.DomID, n uint32) ([]byte, error)
	SetVCPUContext(ctx context.Context, id guest.DomID, n uint32, context []byte) error

	// VCPUExtended is xen_domctl_ext_vcpucontext, its own vcpu and size fields included (XEN_DOMCTL_get_ext_vcpucontext).
	VCPUExtended(ctx context.Context, id guest.DomID, n uint32) ([]byte, error)
	SetVCPUExtended(ctx context.Context, id guest.DomID, n uint32, ext []byte) error

	// VCPUXSave is xcr0, xcr0_accum and the XSAVE image (XEN_DOMCTL_getvcpuextstate).
	VCPUXSave(ctx context.Context, id guest.DomID, n uint32) ([]byte, error)
	SetVCPUXSave(ctx context.Context, id guest.DomID, n uint32, xsave []byte) error

	// VCPUMSRs are the MSRs that a PV vCPU has set (XEN_DOMCTL_get_vcpu_msrs).
	VCPUMSRs(ctx context.Context, id guest.DomID, n uint32) ([]guest.MSR, error)
	SetVCPUMSRs(ctx context.Context, id guest.DomID, n uint32, msrs []guest.MSR) error

	// HVMContext is the whole of an HVM domain's state beside memory and parameters (XEN_DOMCTL_gethvmcontext).
	HVMContext(ctx context.Context, id guest.DomID) ([]byte, error)
	SetHVMContext(ctx context.Context, id guest.DomID, blob []byte) error

	// HVMParam is one HVM parameter (HVMOP_get_param). An index that the release lacks is an error.
	HVMParam(ctx context.Context, id guest.DomID, index uint32) (uint64, error)
	SetHVMParam(ctx context.Context, id guest.DomID, index uint32, value uint64) error

	// TSC is the domain's time stamp counter (XEN_DOMCTL_gettscinfo).
	TSC(ctx context.Context, id guest.DomID) (guest.TSC, error)
	SetTSC(ctx context.Context, id guest.DomID, tsc guest.TSC) error

	// CPUPolicy is what the domain sees of its processor (XEN_DOMCTL_get_cpu_policy). Setting merges into what is
	// there; it is refused once the domain has run, and the error names the leaf or MSR that Xen did not take.
	CPUPolicy(ctx context.Context, id guest.DomID) (guest.CPUPolicy, error)
	SetCPUPolicy(ctx context.Context, id guest.DomID, p guest.CPUPolicy) error

	// SeedGrants writes grant entries 0 (console) and 1 (xenstore) of a new domain, both towards domain 0. A frame
	// of guest.InvalidGFN is left out.
	SeedGrants(ctx context.Context, id guest.DomID, console, store guest.GFN) error
}
