package guestos

import (
	"slices"

	"xenferry/lib/guest"
)

// What a toolstack does for a new domain, and a guest counts on afterwards.

// buildTSC is what a new guest's time stamp counter is set to.
var buildTSC = guest.TSC{KHz: 2_400_000, NSec: 1_000_000_000}

// featureVMX is Intel's virtual machines in ecx of CPUID leaf 1.
const featureVMX = 1 << 5

// noSubleaf marks a CPUID leaf without subleaves.
const noSubleaf = 1<<32 - 1

// cpuPolicy is a processor that differs a little from guest to guest.
func (l *Layout) cpuPolicy() guest.CPUPolicy {
	stepping := uint32(l.Seed & 0xF)
	leaf := func(n, sub, a, b, c, d uint32) guest.CPUIDLeaf {
		return guest.CPUIDLeaf{Leaf: n, Subleaf: sub, A: a, B: b, C: c, D: d}
	}
	p := guest.CPUPolicy{
		Leaves: []guest.CPUIDLeaf{
			leaf(0, noSubleaf, 0xD, 0x756E6547, 0x6C65746E, 0x49656E69), // GenuineIntel
			leaf(1, noSubleaf, 0x306C0|stepping, 0x10800, 0xF7FA3203, 0x1FCBFBFF),
			leaf(2, noSubleaf, 0x76036301, 0xF0B5FF, 0, 0xC10000),
			leaf(4, 0, 0x1C004121, 0x1C0003F, 0x3F, 0),
			leaf(4, 1, 0x1C004122, 0x1C0003F, 0x3F, 0),
			leaf(7, 0, 0, 0x000027AB, 0, 0x0C000000),
			leaf(0xD, 0, xcr0Mask, xsaveSize, xsaveSize, 0),
			leaf(0xD, 2, 256, 576, 0, 0),
			leaf(0x80000000, noSubleaf, 0x80000008, 0, 0, 0),
			leaf(0x80000001, noSubleaf, 0, 0, 0x21, 0x2C100800),
			leaf(0x80000008, noSubleaf, 0x3027, 0, 0, 0),
		},
		MSRs: []guest.MSR{{Index: 0xCE, Value: 0x80000000}},
	}
	if l.Nested {
		p.Leaves[1].C |= featureVMX
	}
	return p
}

// rings are the frames of the console and xenstore, as grants name them.
func (k *Kernel) rings() (console, store guest.GFN) {
	if k.Kind.PV() {
		return guest.GFN(k.frame(k.Console)), guest.GFN(k.frame(k.Store))
	}
	return guest.GFN(k.Console), guest.GFN(k.Store)
}

// setUp is the toolstack's part in a new domain.
func (k *Kernel) setUp() error {
	if err := k.hv.SetCPUPolicy(k.cpuPolicy()); err != nil {
		return err
	}
	if err := k.hv.SetTSC(buildTSC); err != nil {
		return err
	}
	if err := k.hv.SeedGrants(k.rings()); err != nil {
		return err
	}
	if k.Kind.PV() {
		return nil
	}
	if k.Nested && !k.hv.Release().AtLeast(4, 15) {
		if err := k.hv.SetHVMParam(paramNestedHVM, 1); err != nil {
			return err
		}
	}
	info := k.hv.Info()
	if err := k.hv.SetHVMParam(paramStoreEvtchn, uint64(info.StoreEvtchn)); err != nil {
		return err
	}
	return k.hv.SetHVMParam(paramConsoleEvtchn, uint64(info.ConsoleEvtchn))
}

// checkSetUp compares what the domain has with what the guest was given.
func (k *Kernel) checkSetUp(r *Report) {
	want := buildTSC
	tsc, err := k.hv.TSC()
	if err != nil || tsc.Mode != want.Mode || tsc.KHz != want.KHz || tsc.NSec < want.NSec || tsc.Incarnation == 0 {
		r.addf("TSC: %+v, error %v; want %+v or later", tsc, err, want)
	}
	if !k.anyCPU {
		k.checkPolicy(r)
	}
	wantConsole, wantStore := k.rings()
	if console, store, err := k.hv.Grants(); err != nil || console != wantConsole || store != wantStore {
		r.addf("grants: console %#x, store %#x, error %v; want %#x, %#x", uint64(console), uint64(store), err,
			uint64(wantConsole), uint64(wantStore))
	}
}

// checkPolicy compares the processor with the one the guest had.
func (k *Kernel) checkPolicy(r *Report) {
	policy, err := k.hv.CPUPolicy()
	if err != nil {
		r.addf("%v", err)
	}
	for _, l := range k.cpuPolicy().Leaves {
		if !slices.Contains(policy.Leaves, l) {
			r.addf("CPU policy: no leaf %+v", l)
		}
	}
	for _, m := range k.cpuPolicy().MSRs {
		if !slices.Contains(policy.MSRs, m) {
			r.addf("CPU policy: no MSR %+v", m)
		}
	}
}
