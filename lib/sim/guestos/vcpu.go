package guestos

import (
	"bytes"
	"fmt"

	"xenferry/lib/guest"
)

// contextLayout is where vcpu_guest_context has what (xen/include/public/arch-x86/xen.h).
type contextLayout struct {
	size, regs, regsEnd    int // user_regs
	rax, rbx, rdx          int
	rip, cs, flags, rsp    int
	ss, ds                 int
	traps, trapSize        int // trap_ctxt[256]
	gdtFrames, gdtEnts     int
	kernelSS, kernelSP     int
	cr0, cr1, cr3          int
	callback, callbackSize int // event, failsafe and (64 bits) syscall entry points
	vmAssist, gsBase       int
	kernelCS, kernelData   uint16
}

var context64 = contextLayout{size: 5168, regs: 520, regsEnd: 640, rax: 600, rbx: 560, rdx: 616, rip: 648, cs: 656,
	flags: 664, rsp: 672, ss: 680, ds: 696, traps: 720, trapSize: 16, gdtFrames: 4832, gdtEnts: 4960, kernelSS: 4968,
	kernelSP: 4976, cr0: 4984, cr1: 4992, cr3: 5008, callback: 5112, callbackSize: 8, vmAssist: 5136, gsBase: 5152,
	kernelCS: 0xE033, kernelData: 0xE02B}

var context32 = contextLayout{size: 2800, regs: 516, regsEnd: 544, rax: 540, rbx: 516, rdx: 524, rip: 548, cs: 552,
	flags: 556, rsp: 560, ss: 564, ds: 572, traps: 584, trapSize: 8, gdtFrames: 2640, gdtEnts: 2704, kernelSS: 2708,
	kernelSP: 2712, cr0: 2716, cr3: 2728, callback: 2780, callbackSize: 4, vmAssist: 2796,
	kernelCS: 0xE019, kernelData: 0xE021}

func contextOf(k guest.Kind) *contextLayout {
	if k == guest.PV32 {
		return &context32
	}
	return &context64
}

// Flags of vcpu_guest_context, at octet 512, and vm_assist bits.
const (
	contextFlags    = 512
	vgcfI387        = 0x01
	vgcfInKernel    = 0x04
	vgcfOnline      = 0x20
	assistPAEBigCR3 = 1 << 3 // a pv32 cr3 may name a frame above 4 GiB, in the rotated form
)

// word reads and putWord writes a machine word of the guest's.
func word(b []byte, width int) uint64 {
	if width == 4 {
		return uint64(le.Uint32(b))
	}
	return le.Uint64(b)
}

func putWord(b []byte, width int, v uint64) {
	if width == 4 {
		le.PutUint32(b, uint32(v))
		return
	}
	le.PutUint64(b, v)
}

// encodeCR3 and decodeCR3 are the two forms of a top page table's frame in a PV control register.
func encodeCR3(k guest.Kind, m guest.MFN) uint64 {
	if k == guest.PV32 {
		return uint64(uint32(m)<<12 | uint32(m)>>20)
	}
	return uint64(m) << guest.PageShift
}

func decodeCR3(k guest.Kind, cr3 uint64) guest.MFN {
	if k == guest.PV32 {
		return guest.MFN(uint32(cr3)>>12 | uint32(cr3)<<20)
	}
	return guest.MFN(cr3 >> guest.PageShift)
}

// boot is where a kernel begins to know itself: the frame of vCPU 0's top page table, and the address in its rbx.
func boot(hv Hypervisor) (root guest.MFN, va uint64, err error) {
	kind := hv.Spec().Kind
	if !kind.PV() {
		blob, err := hv.HVMContext()
		if err != nil {
			return 0, 0, err
		}
		cpu, err := findHVMRecord(blob, hvmCPU, 0)
		if err != nil {
			return 0, 0, err
		}
		return hv.Frame(guest.PFN(le.Uint64(cpu[hvmCR3:]) >> guest.PageShift)), le.Uint64(cpu[hvmRBX:]), nil
	}
	c, err := hv.VCPUContext(0)
	if err != nil {
		return 0, 0, err
	}
	l := contextOf(kind)
	if len(c) < l.size {
		return 0, 0, fmt.Errorf("context of vCPU 0: %d octets", len(c))
	}
	return decodeCR3(kind, word(c[l.cr3:], kind.Width())), word(c[l.rbx:], kind.Width()), nil
}

// gdt is which pages hold a vCPU's descriptors, and how many those are. vCPU 0's are spread over two pages.
func (l *Layout) gdt(n uint32) (pages []guest.PFN, ents uint64) {
	if n == 0 {
		return []guest.PFN{l.GDT[0], l.GDT[l.VCPUs]}, 520
	}
	return l.GDT[n : n+1], 16
}

// pvContext is the vcpu_guest_context of an online vCPU, as the guest's kernel left it when it last suspended.
func (k *Kernel) pvContext(n uint32) []byte {
	l, w := contextOf(k.Kind), k.Kind.Width()
	c := make([]byte, l.size)
	copy(c, fpuImage(k.Seed, n))
	putWord(c[contextFlags:], w, vgcfI387|vgcfInKernel|vgcfOnline)
	for at := l.regs; at < l.regsEnd; at += w {
		putWord(c[at:], w, mix(k.Seed, uint64(n)<<16|uint64(at)))
	}
	code := k.space.direct + 0x1000*uint64(n+1)
	for at, v := range map[int]uint64{l.rip: code, l.cs: uint64(l.kernelCS), l.flags: 0x202, l.rsp: code + 0xF00,
		l.ss: uint64(l.kernelData), l.ds: uint64(l.kernelData), l.kernelSS: uint64(l.kernelData), l.kernelSP: code + 0xFF0,
		l.cr0: 0x80050033, l.cr3: encodeCR3(k.Kind, k.frame(k.Root)), l.rax: 0} {
		putWord(c[at:], w, v)
	}
	if n == 0 {
		putWord(c[l.rbx:], w, k.infoAddr())
		putWord(c[l.rdx:], w, uint64(k.frame(k.StartInfo)))
	}
	for v := range 32 {
		t := c[l.traps+v*l.trapSize:]
		t[0] = byte(v)
		le.PutUint16(t[2:], l.kernelCS)
		putWord(t[l.trapSize-w:], w, code+16*uint64(v))
	}
	pages, ents := k.gdt(n)
	for i, p := range pages {
		putWord(c[l.gdtFrames+i*w:], w, uint64(k.frame(p)))
	}
	putWord(c[l.gdtEnts:], w, ents)
	if k.Kind == guest.PV32 {
		for i := range 2 { // event and failsafe: selector, address
			le.PutUint32(c[l.callback+8*i:], uint32(l.kernelCS))
			le.PutUint32(c[l.callback+8*i+4:], uint32(code)+0x800+uint32(i)*16)
		}
		le.PutUint32(c[l.vmAssist:], assistPAEBigCR3)
		return c
	}
	le.PutUint64(c[l.cr1:], encodeCR3(k.Kind, k.frame(k.UserRoot)))
	for i := range 3 {
		le.PutUint64(c[l.callback+8*i:], code+0x800+uint64(i)*16)
	}
	le.PutUint64(c[l.gsBase:], code)
	return c
}

// infoAddr is the address of the info page.
func (k *Kernel) infoAddr() uint64 { return k.space.direct + uint64(k.Info)<<guest.PageShift }

// fpuImage is the FXSAVE area of a vCPU.
func fpuImage(seed uint64, n uint32) []byte {
	b := make([]byte, 512)
	le.PutUint16(b, 0x37F)
	le.PutUint32(b[24:], 0x1F80)
	fillRandom(b[160:416], mix(seed, uint64(n)|1<<32))
	return b
}

// xsaveArea is an uncompacted XSAVE image of the components in xcr0Mask.
const (
	xcr0Mask  = 7 // x87, SSE, AVX
	xsaveSize = 512 + 64 + 256
)

func xsaveArea(seed uint64, n uint32) []byte {
	b := append(fpuImage(seed, n), make([]byte, xsaveSize-512)...)
	le.PutUint64(b[512:], xcr0Mask)
	fillRandom(b[576:], mix(seed, uint64(n)|2<<32))
	return b
}

// pvExtended, pvXSave and pvMSRs are what a PV vCPU has beside its context.
func (k *Kernel) pvExtended(n uint32) []byte {
	b := make([]byte, 64)
	le.PutUint32(b, n)
	le.PutUint32(b[4:], uint32(len(b)))
	le.PutUint64(b[8:], k.space.direct+0x2000)
	le.PutUint64(b[16:], k.space.direct+0x2040)
	l := contextOf(k.Kind)
	le.PutUint16(b[24:], l.kernelCS)
	le.PutUint16(b[26:], l.kernelCS)
	b[28], b[29] = 1, 1
	return b
}

func (k *Kernel) pvXSave(n uint32) []byte {
	b := le.AppendUint64(nil, xcr0Mask)
	b = le.AppendUint64(b, xcr0Mask)
	return append(b, xsaveArea(k.Seed, n)...)
}

func (k *Kernel) pvMSRs(n uint32) []guest.MSR {
	return []guest.MSR{{Index: 0xC0000103, Value: uint64(n) + 1}} // TSC_AUX
}

// setPVVCPUs loads the state of all online vCPUs.
func (k *Kernel) setPVVCPUs() error {
	for n := range k.Online {
		if err := k.hv.SetVCPUContext(n, k.pvContext(n)); err != nil {
			return err
		}
		if err := k.hv.SetVCPUExtended(n, k.pvExtended(n)); err != nil {
			return err
		}
		if err := k.hv.SetVCPUXSave(n, k.pvXSave(n)); err != nil {
			return err
		}
		if err := k.hv.SetVCPUMSRs(n, k.pvMSRs(n)); err != nil {
			return err
		}
	}
	return nil
}

// checkPVVCPUs compares the state of all vCPUs with what they were given. In vCPU 0 rax is free: it is the answer to
// the last suspend.
func (k *Kernel) checkPVVCPUs(r *Report) {
	l, w := contextOf(k.Kind), k.Kind.Width()
	for n := range k.VCPUs {
		online, err := k.hv.VCPUOnline(n)
		if err != nil || online != (n < k.Online) {
			r.addf("vCPU %d: online %v, error %v; want online %v", n, online, err, n < k.Online)
			continue
		}
		if !online {
			continue
		}
		got, err := k.hv.VCPUContext(n)
		if err != nil {
			r.addf("vCPU %d: %v", n, err)
			continue
		}
		want := k.pvContext(n)
		if n == 0 && len(got) == len(want) {
			if rax := word(got[l.rax:], w); rax > 1 {
				r.addf("vCPU 0: suspend answered %#x", rax)
			}
			copy(want[l.rax:l.rax+w], got[l.rax:])
		}
		r.compare(fmt.Sprintf("vCPU %d: context", n), got, want)
		if got, err := k.hv.VCPUExtended(n); err != nil || !bytes.Equal(got, k.pvExtended(n)) {
			r.addf("vCPU %d: extended context differs: % x, error %v", n, got, err)
		}
		if got, err := k.hv.VCPUXSave(n); err != nil {
			r.addf("vCPU %d: %v", n, err)
		} else {
			r.compare(fmt.Sprintf("vCPU %d: xsave", n), got, k.pvXSave(n))
		}
		if got, err := k.hv.VCPUMSRs(n); err != nil || fmt.Sprint(got) != fmt.Sprint(k.pvMSRs(n)) {
			r.addf("vCPU %d: MSRs %v, error %v; want %v", n, got, err, k.pvMSRs(n))
		}
	}
}
