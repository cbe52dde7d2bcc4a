package guestos

import (
	"fmt"

	"xenferry/lib/guest"
)

// Types of records in an HVM context (xen/include/public/arch-x86/hvm/save.h).
const (
	hvmEnd       = 0
	hvmHeader    = 1
	hvmCPU       = 2
	hvmPIC       = 3
	hvmIOAPIC    = 4
	hvmLAPIC     = 5
	hvmLAPICRegs = 6
	hvmPCIIRQ    = 7
	hvmISAIRQ    = 8
	hvmPCILink   = 9
	hvmPIT       = 10
	hvmRTC       = 11
	hvmHPET      = 12
	hvmPMTimer   = 13
	hvmMTRR      = 14
	hvmXSave     = 16
	hvmVMCE      = 18
	hvmTSCAdjust = 19
)

// Offsets in the CPU record.
const (
	hvmCPUSize = 1032
	hvmRAX     = 512
	hvmRBX     = 520
	hvmRDX     = 536
	hvmRIP     = 640
	hvmRFlags  = 648
	hvmCR0     = 656
	hvmCR3     = 672
	hvmCR4     = 680
	hvmCSSel   = 736
	hvmCSLimit = 768
	hvmCSBase  = 808
	hvmCSBytes = 888
	hvmEFER    = 992
	hvmTSCAux  = 1000
	hvmTSC     = 1008
	hvmFlags   = 1024
)

// hvmRecord is one record of an HVM context.
type hvmRecord struct {
	code, instance uint16
	data           []byte
}

// hvmRecords is the HVM context of the guest, without its end. An HVM guest has the emulated devices of a PC besides.
func (k *Kernel) hvmRecords() (rs []hvmRecord) {
	add := func(code, instance int, data []byte) {
		rs = append(rs, hvmRecord{uint16(code), uint16(instance), data})
	}
	perVCPU := func(code int, n uint32, data func(n uint32) []byte) {
		for i := range n {
			add(code, int(i), data(i))
		}
	}
	opaque := func(size int) []byte { return make([]byte, size) }
	add(hvmHeader, 0, k.hvmHeader())
	perVCPU(hvmCPU, k.Online, k.hvmCPU)
	if k.Kind == guest.HVM {
		add(hvmPIC, 0, []byte{0, 0xFB, 0, 4, 2, 0, 0, 8})
		add(hvmPIC, 1, []byte{0, 0xFF, 0, 4, 2, 0, 0, 0x70})
		ioapic := opaque(400)
		le.PutUint64(ioapic, 0xFEC00000)
		le.PutUint32(ioapic[12:], 1)
		fillRandom(ioapic[16:], mix(k.Seed, hvmIOAPIC))
		add(hvmIOAPIC, 0, ioapic)
	}
	perVCPU(hvmLAPIC, k.VCPUs, k.hvmLAPIC)
	perVCPU(hvmLAPICRegs, k.VCPUs, func(n uint32) []byte {
		b := opaque(1024)
		le.PutUint32(b[0x20:], n*2<<24)
		le.PutUint32(b[0x30:], 0x50014)
		le.PutUint32(b[0xF0:], 0x1FF)
		return b
	})
	add(hvmPCIIRQ, 0, opaque(16))
	add(hvmISAIRQ, 0, opaque(8))
	add(hvmPCILink, 0, []byte{5, 10, 11, 5, 0, 0, 0, 0})
	if k.Kind == guest.HVM {
		add(hvmPIT, 0, opaque(56))
		rtc := opaque(24)
		copy(rtc, []byte{0x12, 0, 0x34, 0, 0x20, 0, 2, 0x19, 8, 0x26, 0x26, 2, 0, 0x80})
		add(hvmRTC, 0, rtc)
		hpet := opaque(1048)
		le.PutUint64(hpet, 0xF424008086A201)
		add(hvmHPET, 0, hpet)
		add(hvmPMTimer, 0, []byte{0x78, 0x56, 0x34, 0x12, 1, 0, 0x21, 0})
	}
	perVCPU(hvmMTRR, k.VCPUs, func(uint32) []byte {
		b := opaque(240)
		le.PutUint64(b, 0x0007040600070406)
		for i := range 11 {
			le.PutUint64(b[136+8*i:], 0x0606060606060606)
		}
		le.PutUint64(b[224:], 0x508)
		le.PutUint64(b[232:], 0xC06)
		return b
	})
	perVCPU(hvmXSave, k.Online, func(n uint32) []byte {
		b := le.AppendUint64(nil, xcr0Mask)
		return append(b, k.pvXSave(n)...)
	})
	perVCPU(hvmVMCE, k.VCPUs, func(uint32) []byte { return opaque(32) })
	perVCPU(hvmTSCAdjust, k.VCPUs, func(n uint32) []byte { return le.AppendUint64(nil, mix(k.Seed, uint64(n))&0xFFFF) })
	return rs
}

func (k *Kernel) hvmHeader() []byte {
	b := le.AppendUint32(nil, 0x54381286)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, 1<<64-1)
	b = le.AppendUint32(b, 0x000306C3)
	return le.AppendUint32(b, 2_400_000)
}

// hvmCPU is a vCPU in 64-bit mode with the kernel's page tables.
func (k *Kernel) hvmCPU(n uint32) []byte {
	b := make([]byte, hvmCPUSize)
	copy(b, fpuImage(k.Seed, n))
	for at := hvmRAX; at < hvmRIP; at += 8 {
		le.PutUint64(b[at:], mix(k.Seed, uint64(n)<<16|uint64(at)))
	}
	le.PutUint64(b[hvmRAX:], 0)
	if n == 0 {
		le.PutUint64(b[hvmRBX:], k.infoAddr())
	}
	le.PutUint64(b[hvmRIP:], k.space.direct+0x1000*uint64(n+1))
	le.PutUint64(b[hvmRFlags:], 0x202)
	le.PutUint64(b[hvmCR0:], 0x80050033)
	le.PutUint64(b[hvmCR3:], uint64(k.Root)<<guest.PageShift)
	le.PutUint64(b[hvmCR4:], 0x6A0)
	for i := range 8 { // cs, ds, es, fs, gs, ss, tr, ldtr
		sel, bytes := uint32(0x18), uint32(0xC093)
		switch i {
		case 0:
			sel, bytes = 0x10, 0xA09B
		case 6:
			sel, bytes = 0x40, 0x8B
		case 7:
			sel, bytes = 0, 0x10000
		}
		le.PutUint32(b[hvmCSSel+4*i:], sel)
		le.PutUint32(b[hvmCSLimit+4*i:], 1<<32-1)
		le.PutUint32(b[hvmCSBytes+4*i:], bytes)
	}
	le.PutUint64(b[hvmEFER:], 0xD01)
	le.PutUint64(b[hvmTSCAux:], uint64(n))
	le.PutUint64(b[hvmTSC:], 1_000_000_000)
	le.PutUint32(b[hvmFlags:], 1)
	return b
}

// hvmLAPIC is a vCPU's local APIC; later releases keep an error register more.
func (k *Kernel) hvmLAPIC(n uint32) []byte {
	b := make([]byte, 24)
	if k.hv.Release().AtLeast(4, 20) {
		b = make([]byte, 32)
	}
	base := uint64(0xFEE00800)
	if n == 0 {
		base |= 0x100
	}
	le.PutUint64(b, base)
	return b
}

// appendHVM writes records one after the other, with their end.
func appendHVM(b []byte, rs []hvmRecord) []byte {
	for _, r := range append(rs, hvmRecord{code: hvmEnd}) {
		b = le.AppendUint16(b, r.code)
		b = le.AppendUint16(b, r.instance)
		b = le.AppendUint32(b, uint32(len(r.data)))
		b = append(b, r.data...)
	}
	return b
}

// findHVMRecord finds one record of an HVM context.
func findHVMRecord(blob []byte, code, instance uint16) ([]byte, error) {
	for len(blob) >= 8 {
		c, i, n := le.Uint16(blob), le.Uint16(blob[2:]), le.Uint32(blob[4:])
		blob = blob[8:]
		if uint64(n) > uint64(len(blob)) || c == hvmEnd {
			break
		}
		if c == code && i == instance {
			return blob[:n], nil
		}
		blob = blob[n:]
	}
	return nil, fmt.Errorf("HVM context: no record of type %d, instance %d", code, instance)
}

// checkHVMContext compares the context with what the guest was given. Time stamp counters run; vCPU 0's rax is the
// answer to the last suspend; releases differ in how long some records are,
// with zeros at the end of the longer ones.
func (k *Kernel) checkHVMContext(r *Report) {
	blob, err := k.hv.HVMContext()
	if err != nil {
		r.addf("%v", err)
		return
	}
	for _, want := range k.hvmRecords() {
		got, err := findHVMRecord(blob, want.code, want.instance)
		if err != nil {
			r.addf("%v", err)
			continue
		}
		switch want.code {
		case hvmHeader: // the host's own
			continue
		case hvmCPU:
			if len(got) < hvmCPUSize {
				break
			}
			copy(want.data[hvmTSC:hvmTSC+8], got[hvmTSC:])
			if rax := le.Uint64(got[hvmRAX:]); want.instance == 0 && rax <= 1 {
				le.PutUint64(want.data[hvmRAX:], rax)
			}
		}
		n := max(len(want.data), len(got))
		r.compare(fmt.Sprintf("HVM context: type %d, instance %d", want.code, want.instance), padded(got, n), padded(want.data, n))
	}
	for n := range k.VCPUs {
		if online, err := k.hv.VCPUOnline(n); err != nil || online != (n < k.Online) {
			r.addf("vCPU %d: online %v, error %v; want online %v", n, online, err, n < k.Online)
		}
	}
}

// padded is b with zeros behind it, n octets in all.
func padded(b []byte, n int) []byte {
	p := make([]byte, n)
	copy(p, b)
	return p
}

// HVM parameters (xen/include/public/hvm/params.h).
const (
	paramCallbackIRQ   = 0
	paramStorePFN      = 1
	paramStoreEvtchn   = 2
	paramIOReqPFN      = 5
	paramBufIOReqPFN   = 6
	paramIdentPT       = 12
	paramConsolePFN    = 17
	paramConsoleEvtchn = 18
	paramNestedHVM     = 24 // until 4.14
	paramACPIIOPorts   = 19
	paramPagingRing    = 27
	paramMonitorRing   = 28
	paramSharingRing   = 29
	paramIOReqServer   = 32
	paramIOReqServers  = 33
	paramVM86TSSSized  = 37
)

// callbackVector is the guest's CALLBACK_IRQ: by vector 0xF3. A restored guest has to set it anew.
const callbackVector = 2<<56 | 0xF3

// hvmParam is one parameter with its value.
type hvmParam struct {
	index uint32
	value uint64
}

// hvmParams are the parameters that the guest was built with and keeps for life.
func (k *Kernel) hvmParams() []hvmParam {
	at := func(i guest.PFN) uint64 { return uint64(specialPages + i) }
	ps := []hvmParam{
		{paramStorePFN, at(specialStore)},
		{paramConsolePFN, at(specialConsole)},
		{paramIdentPT, at(specialIdentPT) << guest.PageShift},
		{paramIOReqPFN, at(specialIOReq)},
		{paramBufIOReqPFN, at(specialBufIOReq)},
		{paramPagingRing, at(specialPaging)},
		{paramMonitorRing, at(specialAccess)},
		{paramSharingRing, at(specialSharing)},
	}
	if k.Kind == guest.PVH {
		return ps
	}
	return append(ps,
		hvmParam{paramACPIIOPorts, 1},
		hvmParam{paramIOReqServer, uint64(ioreqPages)},
		hvmParam{paramIOReqServers, 8},
		hvmParam{paramVM86TSSSized, 0x80<<32 | uint64(vgaHole-1)<<guest.PageShift},
	)
}

// checkHVMParams compares the parameters with what the guest was given, and the ports with the domain's own.
func (k *Kernel) checkHVMParams(r *Report) {
	info := k.hv.Info()
	want := append(k.hvmParams(), hvmParam{paramStoreEvtchn, uint64(info.StoreEvtchn)},
		hvmParam{paramConsoleEvtchn, uint64(info.ConsoleEvtchn)})
	if k.State() == Running {
		want = append(want, hvmParam{paramCallbackIRQ, callbackVector})
	}
	for _, p := range want {
		if got, err := k.hv.HVMParam(p.index); err != nil || got != p.value {
			r.addf("HVM parameter %d: %#x, error %v; want %#x", p.index, got, err, p.value)
		}
	}
}
