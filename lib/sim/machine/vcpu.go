package machine

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

var le = binary.LittleEndian

// vcpu is one vCPU. Of an HVM domain only the flags are used: its state is in the domain's HVM context.
type vcpu struct {
	initialised, online bool

	context  []byte      // vcpu_guest_context, as long as the domain's word size has it
	roots    []guest.MFN // the page tables that cr3 and, if set, a 64-bit domain's cr1 refer to
	gdt      []guest.MFN
	extended []byte // xen_domctl_ext_vcpucontext, nil until set
	xsave    []byte
	msrs     []guest.MSR
}

// layout is where vcpu_guest_context has its fields. Offsets are in octets; a word is as wide as the guest's.
type layout struct {
	size, word int
	ax         int
	ldt        int // ldt_base and ldt_ents, a word each
	gdt        int // gdt_frames[16], then gdt_ents, words
	cr1, cr3   int
}

var (
	layout64 = layout{size: 5168, word: 8, ax: 600, ldt: 4816, gdt: 4832, cr1: 4992, cr3: 5008}
	layout32 = layout{size: 2800, word: 4, ax: 540, ldt: 2632, gdt: 2640, cr1: 2720, cr3: 2728}
)

const (
	contextFlags = 512  // in both layouts; the low octet is enough of it
	vgcfOnline   = 0x20 // VGCF_online
	maxGDT       = 7168 // FIRST_RESERVED_GDT_ENTRY
	gdtFrames    = 16
	perGDTFrame  = 512
	maxLDT       = 8192
)

func (d *domain) layout() *layout {
	if d.width() == 4 {
		return &layout32
	}
	return &layout64
}

func (l *layout) at(c []byte, off int) uint64 {
	if l.word == 4 {
		return uint64(le.Uint32(c[off:]))
	}
	return le.Uint64(c[off:])
}

// root is the frame that a control register refers to. A 32-bit one is rotated: frames above 4 GiB need more bits.
func (l *layout) root(cr uint64) guest.MFN {
	if l.word == 4 {
		return guest.MFN(uint32(cr)>>12 | uint32(cr)<<20)
	}
	return guest.MFN(cr >> guest.PageShift)
}

// vcpu is vCPU n, if the domain has one.
func (d *domain) vcpu(n uint32) (*vcpu, error) {
	if uint64(n) >= uint64(len(d.vcpus)) {
		return nil, refuse(unix.EINVAL, "there is no vCPU %d of %d", n, len(d.vcpus))
	}
	return &d.vcpus[n], nil
}

// VCPUOnline reports whether vCPU n is up.
func (m *Machine) VCPUOnline(id guest.DomID, n uint32) (online bool, err error) {
	err = m.with("vCPU info of", id, func(d *domain) error {
		v, err := d.vcpu(n)
		if err == nil {
			online = v.online
		}
		return err
	})
	return online, err
}

// VCPUContext is a vCPU's vcpu_guest_context: 5168 octets, or 2800 for a PV32 domain. An HVM domain's has only its
// registers, from the HVM context.
func (m *Machine) VCPUContext(id guest.DomID, n uint32) (c []byte, err error) {
	err = m.with("get vCPU context of", id, func(d *domain) error { c, err = d.vcpuContext(n); return err })
	return c, err
}

func (d *domain) vcpuContext(n uint32) ([]byte, error) {
	v, err := d.vcpu(n)
	switch {
	case err != nil:
		return nil, err
	case !v.initialised:
		return nil, refuse(unix.ENODATA, "vCPU %d was never given one", n)
	case !d.pv():
		return d.hvmRegisters(n), nil
	}
	return bytes.Clone(v.context), nil
}

// SetVCPUContext loads one. The first load of a PV vCPU refers to its page tables and GDT, which must be fit for that;
// later ones may not change cr3, cr1, GDT or LDT.
func (m *Machine) SetVCPUContext(id guest.DomID, n uint32, c []byte) error {
	return m.with("set vCPU context of", id, func(d *domain) error { return d.setVCPUContext(n, c) })
}

func (d *domain) setVCPUContext(n uint32, c []byte) error {
	v, err := d.vcpu(n)
	if err != nil {
		return err
	}
	l := d.layout()
	if len(c) != l.size {
		return refuse(unix.EINVAL, "vCPU %d: a %v context has %d octets, this one %d", n, d.spec.Kind, l.size, len(c))
	}
	if !d.pv() {
		return d.setHVMRegisters(n, c)
	}
	if v.initialised {
		if err := l.sameTables(v.context, c); err != nil {
			return refuse(errnoOf(err), "vCPU %d: %s", n, whyOf(err))
		}
	} else if err := d.loadTables(v, c); err != nil {
		return refuse(errnoOf(err), "vCPU %d: %s", n, whyOf(err))
	}
	v.context = bytes.Clone(c)
	v.initialised, v.online = true, c[contextFlags]&vgcfOnline != 0
	return nil
}

// sameTables refuses a context b that changes what Xen has taken references to for a.
func (l *layout) sameTables(a, b []byte) error {
	for _, f := range []struct {
		name    string
		off, to int
	}{
		{"cr3", l.cr3, l.cr3 + l.word},
		{"cr1", l.cr1, l.cr1 + l.word},
		{"LDT", l.ldt, l.ldt + 2*l.word},
		{"GDT", l.gdt, l.gdt + (gdtFrames+1)*l.word},
	} {
		if f.name == "cr1" && l.word == 4 {
			continue
		}
		if !bytes.Equal(a[f.off:f.to], b[f.off:f.to]) {
			return refuse(unix.EOPNOTSUPP, "%s of a vCPU in use cannot change", f.name)
		}
	}
	return nil
}

// loadTables refers to all that a PV vCPU's first context names: all, or none when it fails.
func (d *domain) loadTables(v *vcpu, c []byte) (err error) {
	m, l := d.m, d.layout()
	type ref struct {
		what string
		f    guest.MFN
		t    frameType
	}
	var want []ref
	ents := l.at(c, l.gdt+gdtFrames*l.word)
	ldtBase, ldtEnts := l.at(c, l.ldt), l.at(c, l.ldt+l.word)
	switch {
	case ents > maxGDT:
		return refuse(unix.EINVAL, "GDT of %d entries: %d is the most", ents, maxGDT)
	case ldtBase%guest.PageSize != 0 || ldtEnts > maxLDT:
		return refuse(unix.EINVAL, "LDT of %d entries at %#x: want a page boundary and at most %d", ldtEnts, ldtBase, maxLDT)
	}
	for i := range int(ents+perGDTFrame-1) / perGDTFrame {
		want = append(want, ref{"GDT frame", guest.MFN(l.at(c, l.gdt+i*l.word)), typeSegDesc})
	}
	gdts := len(want)
	want = append(want, ref{"cr3", l.root(l.at(c, l.cr3)), frameType(d.levels())})
	if cr1 := l.at(c, l.cr1); l.word == 8 && cr1 != 0 {
		if cr1%guest.PageSize != 0 {
			return refuse(unix.EINVAL, "cr1 is %#x, which is no frame's address", cr1)
		}
		want = append(want, ref{"cr1", l.root(cr1), frameType(d.levels())})
	}
	for i, r := range want {
		if !d.ownsRAM(r.f) {
			err = refuse(unix.EINVAL, "%s %#x is not a frame of the domain", r.what, uint64(r.f))
		} else if err = m.getType(d, r.f, r.t, 0); err != nil {
			err = refuse(errnoOf(err), "%s: %s", r.what, whyOf(err))
		}
		if err != nil {
			for _, r := range want[:i] {
				m.putType(d, r.f)
				m.frames[r.f].refs--
			}
			return err
		}
		m.frames[r.f].refs++
	}
	v.gdt, v.roots = nil, nil
	for i, r := range want {
		if i < gdts {
			v.gdt = append(v.gdt, r.f)
		} else {
			v.roots = append(v.roots, r.f)
		}
	}
	return nil
}

// cancelSuspend makes vCPU 0's hypercall return 1: rax in the context of a PV domain or the CPU record of another.
func (d *domain) cancelSuspend() error {
	if !d.vcpus[0].initialised {
		return refuse(unix.ENODATA, "vCPU 0 was never given a context")
	}
	if !d.pv() {
		le.PutUint64(d.cpuRecord(0)[hvmCPURegs:], 1)
		return nil
	}
	l := d.layout()
	c := d.vcpus[0].context[l.ax:]
	if l.word == 4 {
		le.PutUint32(c, 1)
	} else {
		le.PutUint64(c, 1)
	}
	return nil
}

// extendedLen is xen_domctl_ext_vcpucontext from Xen 4.10 on, 56 octets before; extendedMin is all but its vMCE part.
const (
	extendedLen = 64
	extendedMin = 32
)

// VCPUExtended is a PV vCPU's xen_domctl_ext_vcpucontext, 64 octets, its own vcpu and size fields included. An HVM
// domain has none.
func (m *Machine) VCPUExtended(id guest.DomID, n uint32) (ext []byte, err error) {
	err = m.with("get extended vCPU context of", id, func(d *domain) error {
		v, err := d.vcpu(n)
		if err != nil || !d.pv() {
			return err
		}
		ext = make([]byte, extendedLen)
		copy(ext, v.extended)
		le.PutUint32(ext, n)
		le.PutUint32(ext[4:], extendedLen)
		return nil
	})
	return ext, err
}

// SetVCPUExtended loads one. Its size field, at least 32, may be smaller than 64: what is missing is zero.
func (m *Machine) SetVCPUExtended(id guest.DomID, n uint32, ext []byte) error {
	return m.with("set extended vCPU context of", id, func(d *domain) error { return d.setVCPUExtended(n, ext) })
}

func (d *domain) setVCPUExtended(n uint32, ext []byte) error {
	v, err := d.pvVCPU(n)
	if err != nil {
		return err
	}
	if len(ext) < extendedMin || len(ext) > 128 {
		return refuse(unix.EINVAL, "vCPU %d: %d octets are not 32 to 128", n, len(ext))
	}
	switch vcpu, size := le.Uint32(ext), le.Uint32(ext[4:]); {
	case vcpu != n:
		return refuse(unix.EINVAL, "vCPU %d: its vcpu field names vCPU %d", n, vcpu)
	case size < extendedMin || uint64(size) > uint64(len(ext)):
		return refuse(unix.EINVAL, "vCPU %d: its size field says %d of %d octets", n, size, len(ext))
	default:
		ext = ext[:min(size, extendedLen)]
	}
	for _, at := range []int{8, 16} { // syscall32 and sysenter entry points
		if ip := int64(le.Uint64(ext[at:])); ip<<16>>16 != ip {
			return refuse(unix.EINVAL, "vCPU %d: entry point %#x is not canonical", n, uint64(ip))
		}
	}
	v.extended = bytes.Clone(ext)
	return nil
}

// pvVCPU is vCPU n of what must be a PV domain.
func (d *domain) pvVCPU(n uint32) (*vcpu, error) {
	if !d.pv() {
		return nil, refuse(unix.EINVAL, "it is an HVM domain")
	}
	return d.vcpu(n)
}

// VCPUXSave is a PV vCPU's xcr0, xcr0_accum and XSAVE image, empty if it was never set.
func (m *Machine) VCPUXSave(id guest.DomID, n uint32) (x []byte, err error) {
	err = m.with("get vCPU XSAVE state of", id, func(d *domain) error {
		v, err := d.vcpu(n)
		if err == nil && d.pv() {
			x = bytes.Clone(v.xsave)
		}
		return err
	})
	return x, err
}

// SetVCPUXSave loads it: 16 octets without an image, or with the image of exactly the components in xcr0_accum.
func (m *Machine) SetVCPUXSave(id guest.DomID, n uint32, x []byte) error {
	return m.with("set vCPU XSAVE state of", id, func(d *domain) error { return d.setVCPUXSave(n, x) })
}

func (d *domain) setVCPUXSave(n uint32, x []byte) error {
	v, err := d.pvVCPU(n)
	if err != nil {
		return err
	}
	if err := checkXSave(x); err != nil {
		return refuse(errnoOf(err), "vCPU %d: %s", n, whyOf(err))
	}
	v.xsave = bytes.Clone(x)
	return nil
}

// vcpuMSRs are the registers that XEN_DOMCTL_set_vcpu_msrs takes, in the order in which they are told.
var vcpuMSRs = [...]uint32{0x48, 0x140, 0xC0000103, 0xC0011027, 0xC0011019, 0xC001101A, 0xC001101B}

// VCPUMSRs are a PV vCPU's MSRs that are not zero.
func (m *Machine) VCPUMSRs(id guest.DomID, n uint32) (msrs []guest.MSR, err error) {
	err = m.with("get vCPU MSRs of", id, func(d *domain) error {
		v, err := d.vcpu(n)
		if err != nil || !d.pv() {
			return err
		}
		for _, index := range vcpuMSRs {
			for _, s := range v.msrs {
				if s.Index == index && s.Value != 0 {
					msrs = append(msrs, s)
				}
			}
		}
		return nil
	})
	return msrs, err
}

// SetVCPUMSRs loads some of the seven that can be.
func (m *Machine) SetVCPUMSRs(id guest.DomID, n uint32, msrs []guest.MSR) error {
	return m.with("set vCPU MSRs of", id, func(d *domain) error { return d.setVCPUMSRs(n, msrs) })
}

func (d *domain) setVCPUMSRs(n uint32, msrs []guest.MSR) error {
	v, err := d.pvVCPU(n)
	if err != nil {
		return err
	}
	if len(msrs) > len(vcpuMSRs) {
		return refuse(unix.EINVAL, "vCPU %d: %d MSRs are more than the %d there are", n, len(msrs), len(vcpuMSRs))
	}
	for i, s := range msrs {
		if s.Flags != 0 || !hasMSR(s.Index) {
			return refuse(unix.EINVAL, "vCPU %d: entry %d, MSR %#x with flags %#x, cannot be loaded", n, i, s.Index, s.Flags)
		}
		v.msrs = append(withoutMSR(v.msrs, s.Index), s)
	}
	return nil
}

func hasMSR(index uint32) bool {
	for _, i := range vcpuMSRs {
		if i == index {
			return true
		}
	}
	return false
}

func withoutMSR(msrs []guest.MSR, index uint32) []guest.MSR {
	kept := make([]guest.MSR, 0, len(msrs)+1)
	for _, s := range msrs {
		if s.Index != index {
			kept = append(kept, s)
		}
	}
	return kept
}
