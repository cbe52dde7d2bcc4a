// Package guestos is the guests of the simulated host: it builds real address spaces, runs workloads that write to
// them all the time, plays a guest's part of suspend and resume, and proves page by page that no write was lost, stale,
// torn or foreign. All that a guest knows lives in its own memory and vCPU state, so that it survives a migration.
package guestos

import "xenferry/lib/guest"

// Hypervisor is what the guest of one domain sees of the simulated hypervisor; package machine provides it. Frame
// numbers are checked: a frame that is not the domain's gives a nil page or an error.
type Hypervisor interface {
	// Spec, Release and Width say what domain this is; width is 8, or 4 for pv32.
	Spec() guest.Spec
	Release() guest.Release

	// Info is what the toolstack is told of the domain: the event ports it handed out, whether it ever ran here.
	Info() guest.Info

	// Page is a frame's memory, through the one mapping whose writes the dirty log sees, for as long as the domain
	// owns it. Whoever wrote to it then calls Wrote; the order matters, as a software log may be read in between.
	Page(m guest.MFN) []byte
	Wrote(m guest.MFN)

	// SharedInfo is a PV domain's shared_info page and its frame. Wrote it too.
	SharedInfo() (page []byte, frame guest.MFN)

	// Frame is the machine frame behind a PFN of an HVM domain, or InvalidMFN. A PV guest keeps its own P2M.
	Frame(p guest.PFN) guest.MFN
	// M2P is the frame's PFN as the hypervisor's table has it.
	M2P(m guest.MFN) guest.PFN

	// Populate gets new frames at pfns, all or none; Depopulate gives frames back (MFNs for PV, PFNs for HVM).
	// New frames hold what their last owner left there, as on Xen.
	Populate(pfns []guest.PFN) ([]guest.MFN, error)
	Depopulate(gfns []guest.GFN) error

	// WritePTE changes one entry of a page table in use (HYPERVISOR_mmu_update): refused as Xen refuses, and dirty.
	// A frame that is no page table yet is plain memory, written through Page.
	WritePTE(table guest.MFN, index int, pte uint64) error
	// Pin and Unpin validate a tree of page tables and let go of it (MMUEXT_PIN_*, MMUEXT_UNPIN_TABLE).
	Pin(op guest.PinOp) error
	Unpin(m guest.MFN) error
	// PageType is a frame's type as getpageframeinfo3 tells it.
	PageType(m guest.MFN) guest.PageType

	// The vCPU state, as the toolstack's operations load and fetch it.
	VCPUOnline(n uint32) (bool, error)
	VCPUContext(n uint32) ([]byte, error)
	SetVCPUContext(n uint32, context []byte) error
	VCPUExtended(n uint32) ([]byte, error)
	SetVCPUExtended(n uint32, ext []byte) error
	VCPUXSave(n uint32) ([]byte, error)
	SetVCPUXSave(n uint32, xsave []byte) error
	VCPUMSRs(n uint32) ([]guest.MSR, error)
	SetVCPUMSRs(n uint32, msrs []guest.MSR) error

	// TSC is the domain's time stamp counter, SetTSC sets it.
	TSC() (guest.TSC, error)
	SetTSC(tsc guest.TSC) error

	// CPUPolicy is what the domain sees of its processor; SetCPUPolicy merges into it before the domain first runs.
	CPUPolicy() (guest.CPUPolicy, error)
	SetCPUPolicy(p guest.CPUPolicy) error

	// Grants is the frames in grant entries 0 (console) and 1 (xenstore), which the toolstack seeds.
	Grants() (console, store guest.GFN, err error)
	SeedGrants(console, store guest.GFN) error
	HVMContext() ([]byte, error)
	SetHVMContext(blob []byte) error
	HVMParam(index uint32) (uint64, error)
	SetHVMParam(index uint32, value uint64) error
}
