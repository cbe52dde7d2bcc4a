package machine

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// record is one HVM context record with a zero body of n octets.
func record(code, instance uint16, n int) []byte {
	b := make([]byte, hvmDescriptor+n)
	le.PutUint16(b, code)
	le.PutUint16(b[2:], instance)
	le.PutUint32(b[4:], uint32(n))
	if code == hvmHeader && n == 24 {
		le.PutUint32(b[8:], hvmMagic)
		le.PutUint32(b[12:], hvmVersion)
	}
	return b
}

// xsaveRecord is a CPU_XSAVE record of vCPU 0 with the components in accum.
func xsaveRecord(accum uint64, n int) []byte {
	b := record(hvmXSave, 0, 24+n)
	le.PutUint64(b[16:], accum)
	le.PutUint64(b[24:], accum)
	return b
}

func TestHVMContext(t *testing.T) {
	head, end := record(hvmHeader, 0, 24), record(hvmEnd, 0, 0)
	msrs := record(hvmMSRs, 1, 8+32)
	msrs[8] = 2
	for _, c := range []struct {
		name  string
		minor uint32
		kind  guest.Kind
		body  []byte
		want  error
	}{
		{"CPU", 17, guest.HVM, record(hvmCPU, 0, 1032), nil},
		{"CPU of 4.6", 17, guest.HVM, record(hvmCPU, 1, 1024), nil},
		{"CPU of long ago", 17, guest.HVM, record(hvmCPU, 0, 1016), nil},
		{"CPU cut off", 17, guest.HVM, record(hvmCPU, 0, 1015), unix.EINVAL},
		{"CPU of a vCPU that is not there", 17, guest.HVM, record(hvmCPU, 2, 1032), unix.EINVAL},
		{"short LAPIC on 4.17", 17, guest.HVM, record(5, 0, 24), nil},
		{"long LAPIC on 4.17", 17, guest.HVM, record(5, 0, 32), unix.EINVAL},
		{"short LAPIC on 4.20", 20, guest.HVM, record(5, 0, 24), nil},
		{"long LAPIC on 4.20", 20, guest.HVM, record(5, 0, 32), nil},
		{"RTC", 14, guest.HVM, record(11, 0, 24), nil},
		{"RTC of 4.13", 14, guest.HVM, record(11, 0, 16), nil},
		{"LAPIC_REGS one octet short", 17, guest.HVM, record(6, 0, 1023), unix.EINVAL},
		{"MTRR one octet long", 17, guest.HVM, record(14, 0, 241), unix.EINVAL},
		{"second PIC", 17, guest.HVM, record(3, 1, 8), nil},
		{"third PIC", 17, guest.HVM, record(3, 2, 8), unix.EINVAL},
		{"HPET of PVH", 17, guest.PVH, record(12, 0, 1048), unix.ENODEV},
		{"PCI_IRQ of PVH", 17, guest.PVH, record(7, 0, 16), nil},
		{"unknown", 17, guest.HVM, record(21, 0, 8), unix.EINVAL},
		{"twice", 17, guest.HVM, slices.Concat(record(7, 0, 16), record(7, 0, 16)), unix.EINVAL},
		{"MSRs", 17, guest.HVM, msrs, nil},
		{"more MSRs than there are", 17, guest.HVM, slices.Concat(msrs[:8], []byte{3}, msrs[9:]), unix.EINVAL},
		{"XSAVE", 17, guest.HVM, xsaveRecord(7, 832), nil},
		{"XSAVE without AVX", 17, guest.HVM, xsaveRecord(7, 576), unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, Options{Memory: minMemory, Release: guest.Release{Major: 4, Minor: c.minor}, Log: LogSoftware})
			id := create(t, m, c.kind, 10)
			blob := slices.Concat(head, c.body, end)
			err := m.SetHVMContext(id, blob)
			if c.want != nil {
				if !errors.Is(err, c.want) {
					t.Errorf("loading it: %v, want %v", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := m.HVMContext(id); !bytes.Equal(got, blob) {
				t.Errorf("it comes back as % x: %v", got, err)
			}
		})
	}
}

// An HVM vCPU's registers are those of its CPU record, both ways; resuming sets rax if the guest has PV drivers.
func TestHVMRegisters(t *testing.T) {
	m := newMachine(t, Options{Memory: minMemory, Log: LogSoftware})
	id := create(t, m, guest.PVH, 10)
	cpu := record(hvmCPU, 0, 1032)
	for i := range 18 {
		le.PutUint64(cpu[hvmDescriptor+hvmCPURegs+8*i:], uint64(0x100+i))
	}
	if err := m.SetHVMContext(id, slices.Concat(record(hvmHeader, 0, 24), cpu, record(hvmEnd, 0, 0))); err != nil {
		t.Fatal(err)
	}
	on, err := m.VCPUOnline(id, 0)
	off, err2 := m.VCPUOnline(id, 1)
	if !on || off || err != nil || err2 != nil {
		t.Errorf("vCPU 0 with a CPU record online %v, vCPU 1 without %v: %v, %v", on, off, err, err2)
	}
	c, err := m.VCPUContext(id, 0)
	if err != nil {
		t.Fatal(err)
	}
	const rax, rip, rdx = 600, 648, 616
	if le.Uint64(c[rax:]) != 0x100 || le.Uint64(c[rdx:]) != 0x103 || le.Uint64(c[rip:]) != 0x110 {
		t.Errorf("rax %#x, rdx %#x, rip %#x", le.Uint64(c[rax:]), le.Uint64(c[rdx:]), le.Uint64(c[rip:]))
	}
	le.PutUint64(c[rdx:], 7)
	if err := m.SetVCPUContext(id, 0, c); err != nil {
		t.Fatal(err)
	}
	for _, drivers := range []uint64{0, 1} {
		if err := m.SetHVMParam(id, hvmParamCallbackIRQ, drivers); err != nil {
			t.Fatal(err)
		}
		if err := m.Shutdown(id, guest.ShutdownSuspend); err != nil {
			t.Fatal(err)
		}
		if err := m.Resume(id); err != nil {
			t.Fatal(err)
		}
		c, err = m.VCPUContext(id, 0)
		if want := 0x100 * (1 - drivers); err != nil || le.Uint64(c[rax:]) != want+drivers || le.Uint64(c[rdx:]) != 7 {
			t.Errorf("PV drivers %d: rax %#x, rdx %#x after resume: %v", drivers, le.Uint64(c[rax:]), le.Uint64(c[rdx:]), err)
		}
	}
	if m.Resume(id) == nil {
		t.Error("a domain that is not suspended was resumed")
	}
}

func TestXSave(t *testing.T) {
	image := func(xcr0, accum uint64, n int) []byte {
		b := make([]byte, n)
		le.PutUint64(b, xcr0)
		le.PutUint64(b[8:], accum)
		return b
	}
	compacted := image(7, 7, 16+832)
	compacted[16+xcompBV+7] = 0x80
	for _, c := range []struct {
		name string
		x    []byte
		want error
	}{
		{"never touched", make([]byte, 16), nil},
		{"x87 and SSE", image(1, 3, 16+576), nil},
		{"AVX", image(7, 7, 16+832), nil},
		{"all", image(7, 0x2E7, 16+2696), nil},
		{"short head", make([]byte, 15), unix.EINVAL},
		{"no x87", image(2, 3, 16+576), unix.EINVAL},
		{"xcr0 beyond accum", image(7, 3, 16+576), unix.EINVAL},
		{"one octet more", image(7, 7, 16+833), unix.EINVAL},
		{"unknown component", image(1, 1<<40|1, 16+576), unix.EINVAL},
		{"compacted", compacted, unix.EOPNOTSUPP},
	} {
		if err := checkXSave(c.x); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// A policy grows by what is merged into it, in ascending order, all or nothing, until the domain runs.
func TestCPUPolicy(t *testing.T) {
	m := newMachine(t, Options{Memory: minMemory, Log: LogSoftware})
	id := create(t, m, guest.PVH, 10)
	good := guest.CPUPolicy{
		Leaves: []guest.CPUIDLeaf{{Leaf: 0xD, Subleaf: 1, A: 5}, {Leaf: 0, Subleaf: noSubleaf, A: 0xD}},
		MSRs:   []guest.MSR{{Index: 0x10A, Value: 3}},
	}
	if err := m.SetCPUPolicy(id, good); err != nil {
		t.Fatal(err)
	}
	bad := guest.CPUPolicy{Leaves: []guest.CPUIDLeaf{{Leaf: 1, Subleaf: noSubleaf, A: 9}, {Leaf: 1, Subleaf: 0}}}
	if err := m.SetCPUPolicy(id, bad); !errors.Is(err, unix.ERANGE) {
		t.Errorf("a subleaf of a leaf without: %v", err)
	}
	p, err := m.CPUPolicy(id)
	if err != nil || len(p.Leaves) != 4 || p.Leaves[0].A != 0xD || p.Leaves[1].A != 0 || p.Leaves[2].Leaf != 0xD || len(p.MSRs) != 2 || p.MSRs[1].Value != 3 {
		t.Errorf("the merged policy is %+v, %v", p, err)
	}
	cpu := slices.Concat(record(hvmHeader, 0, 24), record(hvmCPU, 0, 1032), record(hvmEnd, 0, 0))
	if err := errors.Join(m.SetHVMContext(id, cpu), m.Unpause(id)); err != nil {
		t.Fatal(err)
	}
	if err := m.SetCPUPolicy(id, good); !errors.Is(err, unix.EEXIST) {
		t.Errorf("the policy of a domain that has run: %v", err)
	}
}
