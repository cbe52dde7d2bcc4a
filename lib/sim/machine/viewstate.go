package machine

import "xenferry/lib/guest"

// What a guest reads back of its vCPUs and is told of its domain.

// Info is what the toolstack is told of the domain: the event ports it handed out, whether it ever ran here.
func (v *View) Info() (i guest.Info) {
	_ = v.with("info", func(d *domain) error { i = d.info(); return nil })
	return i
}

// VCPUOnline reports whether vCPU n is up.
func (v *View) VCPUOnline(n uint32) (bool, error) { return v.m.VCPUOnline(v.d.id, n) }

// VCPUExtended is a PV vCPU's xen_domctl_ext_vcpucontext.
func (v *View) VCPUExtended(n uint32) ([]byte, error) { return v.m.VCPUExtended(v.d.id, n) }

// VCPUXSave is a PV vCPU's xcr0, xcr0_accum and XSAVE image.
func (v *View) VCPUXSave(n uint32) ([]byte, error) { return v.m.VCPUXSave(v.d.id, n) }

// VCPUMSRs are the MSRs that a PV vCPU has set.
func (v *View) VCPUMSRs(n uint32) ([]guest.MSR, error) { return v.m.VCPUMSRs(v.d.id, n) }

// TSC is the domain's time stamp counter.
func (v *View) TSC() (guest.TSC, error) { return v.m.TSC(v.d.id) }

// SetTSC loads it; the incarnation that TSC tells afterwards is one more.
func (v *View) SetTSC(t guest.TSC) error { return v.m.SetTSC(v.d.id, t) }

// CPUPolicy is what the domain sees of its processor.
func (v *View) CPUPolicy() (guest.CPUPolicy, error) { return v.m.CPUPolicy(v.d.id) }

// SetCPUPolicy merges p into what the domain sees of its processor, before it first runs.
func (v *View) SetCPUPolicy(p guest.CPUPolicy) error { return v.m.SetCPUPolicy(v.d.id, p) }

// Grants is the frames in grant entries 0 (console) and 1 (xenstore).
func (v *View) Grants() (console, store guest.GFN, err error) { return v.m.Grants(v.d.id) }

// SeedGrants writes them, as a toolstack does for a new domain.
func (v *View) SeedGrants(console, store guest.GFN) error {
	return v.m.SeedGrants(v.d.id, console, store)
}
