package x86_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/sim/guestos"
	"xenferry/lib/sim/machine"
	"xenferry/lib/x86"
)

// machineHost is an x86.Host over a simulated machine in this process.
type machineHost struct {
	m   *machine.Machine
	mem []byte
	m2p guest.M2P
}

var _ x86.Host = machineHost{}

func newHost(t testing.TB, pages uint64, release guest.Release, seed uint64) machineHost {
	t.Helper()
	m, err := machine.New(machine.Options{
		Memory: (pages + 4096) * guest.PageSize, Release: release, Log: machine.LogSoftware, Seed: seed, Scrub: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	mem := mapFile(t, m.Memory(), m.Frames()*guest.PageSize)
	return machineHost{m, mem, x86.Words(mapFile(t, m.M2P(), m.Frames()*8))}
}

// mapFile maps all of a machine's memory, as a client of its own does.
func mapFile(t testing.TB, f *os.File, size uint64) []byte {
	t.Helper()
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	return b
}

// create makes a domain without memory.
func (h machineHost) create(t testing.TB, kind guest.Kind, vcpus uint32, maxPages uint64) guest.DomID {
	t.Helper()
	id, err := h.m.Create(guest.Spec{Kind: kind, VCPUs: vcpus, MaxPages: maxPages, UUID: uuid.UUID{7}})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// hypervisor is what the domain's guest sees.
func (h machineHost) hypervisor(t testing.TB, id guest.DomID) guestos.Hypervisor {
	t.Helper()
	v, err := h.m.View(id)
	if err != nil {
		t.Fatal(err)
	}
	return hypervisor{v, h.m, id}
}

type hypervisor struct {
	*machine.View
	m  *machine.Machine
	id guest.DomID
}

func (s hypervisor) Info() guest.Info                       { i, _ := s.m.Info(s.id); return i }
func (s hypervisor) VCPUOnline(n uint32) (bool, error)      { return s.m.VCPUOnline(s.id, n) }
func (s hypervisor) VCPUExtended(n uint32) ([]byte, error)  { return s.m.VCPUExtended(s.id, n) }
func (s hypervisor) VCPUXSave(n uint32) ([]byte, error)     { return s.m.VCPUXSave(s.id, n) }
func (s hypervisor) VCPUMSRs(n uint32) ([]guest.MSR, error) { return s.m.VCPUMSRs(s.id, n) }
func (s hypervisor) TSC() (guest.TSC, error)                { return s.m.TSC(s.id) }
func (s hypervisor) SetTSC(t guest.TSC) error               { return s.m.SetTSC(s.id, t) }

type (
	ctx  = context.Context
	dom  = guest.DomID
	gfns = []guest.GFN
)

func (h machineHost) Release() guest.Release { return h.m.Release() }

func (h machineHost) Info(_ ctx, id dom) (guest.Info, error) { return h.m.Info(id) }

func (h machineHost) M2P(ctx) (guest.M2P, error) {
	return h.m2p, nil
}

func (h machineHost) CompatM2P(ctx) (guest.MFN, error) { return h.m.CompatM2P(), nil }

func (h machineHost) MaxGFN(_ ctx, id dom) (guest.GFN, error) { return h.m.MaxGFN(id) }

func (h machineHost) PageTypes(_ ctx, id dom, g gfns, types []guest.PageType) error {
	return h.m.PageTypes(id, g, types)
}

func (h machineHost) Map(_ ctx, id dom, g gfns, prot guest.Prot) (*guest.Mapping, error) {
	mfns := make([]guest.MFN, len(g))
	hold, errs, err := h.m.Map(id, g, mfns, prot)
	if err != nil {
		return nil, err
	}
	m := &guest.Mapping{Pages: make([][]byte, len(g)), Errs: errs}
	for i, f := range mfns {
		if errs == nil || errs[i] == nil {
			m.Pages[i] = h.mem[f*guest.PageSize:][:guest.PageSize]
		}
	}
	m.Unmap = func() error {
		if prot == guest.ReadWrite && !h.m.Unmap(hold) {
			return errors.New("unmapped twice")
		}
		return nil
	}
	return m, nil
}

func (h machineHost) Populate(_ ctx, id dom, g gfns) error   { return h.m.Populate(id, g) }
func (h machineHost) Depopulate(_ ctx, id dom, g gfns) error { return h.m.Depopulate(id, g) }
func (h machineHost) SetLogDirty(_ ctx, id dom, on bool) error {
	return h.m.SetLogDirty(id, on)
}

func (h machineHost) Dirty(_ ctx, id dom, frames uint64, dirty guest.Bitmap, clean, final bool) (uint64, error) {
	return h.m.Dirty(id, frames, dirty, clean, final)
}

func (h machineHost) AddressSize(_ ctx, id dom) (int, error) { return h.m.AddressSize(id) }
func (h machineHost) SetAddressSize(_ ctx, id dom, bits int) error {
	return h.m.SetAddressSize(id, bits)
}
func (h machineHost) Pin(_ ctx, id dom, ops []guest.PinOp) error       { return h.m.Pin(id, ops) }
func (h machineHost) VCPUOnline(_ ctx, id dom, n uint32) (bool, error) { return h.m.VCPUOnline(id, n) }
func (h machineHost) VCPUContext(_ ctx, id dom, n uint32) ([]byte, error) {
	return h.m.VCPUContext(id, n)
}
func (h machineHost) SetVCPUContext(_ ctx, id dom, n uint32, c []byte) error {
	return h.m.SetVCPUContext(id, n, c)
}
func (h machineHost) VCPUExtended(_ ctx, id dom, n uint32) ([]byte, error) {
	return h.m.VCPUExtended(id, n)
}
func (h machineHost) SetVCPUExtended(_ ctx, id dom, n uint32, b []byte) error {
	return h.m.SetVCPUExtended(id, n, b)
}
func (h machineHost) VCPUXSave(_ ctx, id dom, n uint32) ([]byte, error) { return h.m.VCPUXSave(id, n) }
func (h machineHost) SetVCPUXSave(_ ctx, id dom, n uint32, b []byte) error {
	return h.m.SetVCPUXSave(id, n, b)
}
func (h machineHost) VCPUMSRs(_ ctx, id dom, n uint32) ([]guest.MSR, error) {
	return h.m.VCPUMSRs(id, n)
}
func (h machineHost) SetVCPUMSRs(_ ctx, id dom, n uint32, msrs []guest.MSR) error {
	return h.m.SetVCPUMSRs(id, n, msrs)
}
func (h machineHost) HVMContext(_ ctx, id dom) ([]byte, error)         { return h.m.HVMContext(id) }
func (h machineHost) SetHVMContext(_ ctx, id dom, b []byte) error      { return h.m.SetHVMContext(id, b) }
func (h machineHost) HVMParam(_ ctx, id dom, i uint32) (uint64, error) { return h.m.HVMParam(id, i) }
func (h machineHost) SetHVMParam(_ ctx, id dom, i uint32, v uint64) error {
	return h.m.SetHVMParam(id, i, v)
}
func (h machineHost) TSC(_ ctx, id dom) (guest.TSC, error)             { return h.m.TSC(id) }
func (h machineHost) SetTSC(_ ctx, id dom, t guest.TSC) error          { return h.m.SetTSC(id, t) }
func (h machineHost) CPUPolicy(_ ctx, id dom) (guest.CPUPolicy, error) { return h.m.CPUPolicy(id) }
func (h machineHost) SetCPUPolicy(_ ctx, id dom, p guest.CPUPolicy) error {
	return h.m.SetCPUPolicy(id, p)
}
func (h machineHost) SeedGrants(_ ctx, id dom, console, store guest.GFN) error {
	return h.m.SeedGrants(id, console, store)
}
