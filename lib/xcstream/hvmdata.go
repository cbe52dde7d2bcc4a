package xcstream

import (
	"bytes"
	"fmt"

	"xenferry/lib/guest"
	"xenferry/lib/record"
)

// hvmMagic and hvmVersion are what every HEADER holds.
const (
	hvmMagic   = 0x54381286
	hvmVersion = 1
)

// HVMHeaderData is HEADER, 24 octets:
//
//	 0  magic      u32  0x54381286
//	 4  version    u32  1
//	 8  changeset  u64  all ones if unknown
//	16  cpuid      u32  CPUID leaf 1, EAX
//	20  gtsc_khz   u32  guest TSC frequency, kHz
//
// Errors: another length, magic or version, all of which Xen refuses.
type HVMHeaderData struct {
	Changeset     uint64
	CPUID, TSCKHz uint32
}

// Append adds h's octets to b.
func (h HVMHeaderData) Append(b []byte) []byte {
	b = le.AppendUint32(le.AppendUint32(b, hvmMagic), hvmVersion)
	return le.AppendUint32(le.AppendUint32(le.AppendUint64(b, h.Changeset), h.CPUID), h.TSCKHz)
}

// Decode sets h from the entry's data.
func (h *HVMHeaderData) Decode(c *record.Cursor) error {
	if magic := c.U32(); magic != hvmMagic {
		c.Failf("magic is %#x, not %#x", magic, uint32(hvmMagic))
	}
	if version := c.U32(); version != hvmVersion {
		c.Failf("version is %d, not %d", version, hvmVersion)
	}
	h.Changeset, h.CPUID, h.TSCKHz = c.U64(), c.U32(), c.U32()
	return c.Done()
}

// hvmCPUCompatSize is the length of a CPU entry of Xen 3, without tsc_aux.
const hvmCPUCompatSize = 1016

// HVMCPUTSC is where a CPU entry of length octets has the guest's TSC, 8 octets.
func HVMCPUTSC(length int) int {
	if length == hvmCPUCompatSize {
		return 1000
	}
	return 1008
}

// HVMCPUData is what a CPU entry says of a vCPU's registers, without FPU and debug registers: 1032 octets (1024 of Xen
// 4.6, 1016 of Xen 3). Of segments, Base, Limit and Attr follow the order of Sel.
//
//	 512  rax rbx rcx rdx rbp rsi rdi rsp r8-r15  16 u64
//	 640  rip rflags cr0 cr2 cr3 cr4              u64 each
//	 736  selectors      8 u32  cs ds es fs gs ss tr ldtr
//	 768  limits        10 u32  of these, then idtr, gdtr
//	 808  bases         10 u64  likewise
//	 888  access rights  8 u32
//	 992  efer           u64
//	1000  tsc_aux        u64    not in 1016 octets
//	1008  tsc            u64
//	1016  pending event  u32, error code u32
//	1024  flags          u32    bit 0: the FPU is initialised; 4 octets of padding
type HVMCPUData struct {
	GPR                                 [16]uint64
	RIP, RFLAGS, CR0, CR2, CR3, CR4     uint64
	Sel                                 [8]uint32
	Limit                               [10]uint32
	Base                                [10]uint64
	Attr                                [8]uint32
	EFER, TSCAux, TSC                   uint64
	PendingEvent, ErrorCode, StateFlags uint32
}

// Decode sets d from the entry's data.
func (d *HVMCPUData) Decode(c *record.Cursor) error {
	length := c.Left()
	c.Bytes(512)
	for i := range d.GPR {
		d.GPR[i] = c.U64()
	}
	d.RIP, d.RFLAGS, d.CR0, d.CR2, d.CR3, d.CR4 = c.U64(), c.U64(), c.U64(), c.U64(), c.U64(), c.U64()
	c.Bytes(48) // dr0 to dr3, dr6, dr7
	for i := range d.Sel {
		d.Sel[i] = c.U32()
	}
	for i := range d.Limit {
		d.Limit[i] = c.U32()
	}
	for i := range d.Base {
		d.Base[i] = c.U64()
	}
	for i := range d.Attr {
		d.Attr[i] = c.U32()
	}
	c.Bytes(72) // sysenter, shadow_gs, syscall
	d.EFER = c.U64()
	d.TSCAux, d.StateFlags = 0, 0
	if length != hvmCPUCompatSize {
		d.TSCAux = c.U64()
	}
	d.TSC, d.PendingEvent, d.ErrorCode = c.U64(), c.U32(), c.U32()
	if c.Left() != 0 {
		d.StateFlags = c.U32()
		c.Bytes(4)
	}
	return c.Done()
}

// HVMLAPICData is LAPIC, 32 octets, or 24 without pending_esr: base_msr u64, disabled u32, divisor u32, tdt u64,
// pending_esr u32, 4 octets of padding.
type HVMLAPICData struct {
	BaseMSR           uint64
	Disabled, Divisor uint32
	TDT               uint64
	PendingESR        uint32
}

// Decode sets d from the entry's data.
func (d *HVMLAPICData) Decode(c *record.Cursor) error {
	*d = HVMLAPICData{BaseMSR: c.U64(), Disabled: c.U32(), Divisor: c.U32(), TDT: c.U64()}
	if c.Left() != 0 {
		d.PendingESR = c.U32()
		c.Bytes(4)
	}
	return c.Done()
}

// HVMMTRRData is MTRR, 240 octets: pat u64, 8 pairs of variable base and mask, 11 fixed, cap, def_type, u64 each.
type HVMMTRRData struct {
	PAT          uint64
	Variable     [16]uint64
	Fixed        [11]uint64
	Cap, DefType uint64
}

// Decode sets d from the entry's data.
func (d *HVMMTRRData) Decode(c *record.Cursor) error {
	d.PAT = c.U64()
	for i := range d.Variable {
		d.Variable[i] = c.U64()
	}
	for i := range d.Fixed {
		d.Fixed[i] = c.U64()
	}
	d.Cap, d.DefType = c.U64(), c.U64()
	return c.Done()
}

// hvmXSaveHeader is the size of what stands before the image of a CPU_XSAVE entry.
const hvmXSaveHeader = 24

// HVMXSaveData is CPU_XSAVE: xfeature_mask u64, xcr0 u64, xcr0_accum u64, then the XSAVE image, at least 576 octets.
type HVMXSaveData struct {
	FeatureMask, XCR0, XCR0Accum uint64
	Image                        []byte
}

// Append adds d's octets to b.
func (d HVMXSaveData) Append(b []byte) []byte {
	return append(le.AppendUint64(le.AppendUint64(le.AppendUint64(b, d.FeatureMask), d.XCR0), d.XCR0Accum), d.Image...)
}

// Decode sets d from the entry's data.
func (d *HVMXSaveData) Decode(c *record.Cursor) error {
	d.FeatureMask, d.XCR0, d.XCR0Accum = c.U64(), c.U64(), c.U64()
	if d.Image = bytes.Clone(c.Rest()); len(d.Image) < 576 {
		c.Fail(fmt.Errorf("%w: an XSAVE image of %d octets", record.ErrLength, len(d.Image)))
	}
	return c.Done()
}

// HVMMSRs is CPU_MSR: count u32, 4 octets of padding, then count of u32 index, u32 reserved, u64 value.
type HVMMSRs []guest.MSR

// Append adds m's octets to b.
func (m HVMMSRs) Append(b []byte) []byte {
	b = le.AppendUint32(le.AppendUint32(b, uint32(len(m))), 0)
	return MSRPolicy(m).Append(b)
}

// Decode sets m from the entry's data.
func (m *HVMMSRs) Decode(c *record.Cursor) error {
	count := uint64(c.U32())
	c.Reserved(4)
	if c.Err() == nil && uint64(c.Left()) != count*16 {
		c.Fail(fmt.Errorf("%w: %d octets for %d MSRs of 16", record.ErrLength, c.Left(), count))
	}
	if *m = nil; count == 0 || c.Err() != nil {
		return c.Done()
	}
	return (*MSRPolicy)(m).Decode(c)
}

// HVMVMCEData is VMCE_VCPU, the machine-check state of a vCPU: caps, mci_ctl2 of banks 0 and 1, mcg_ext_ctl, u64 each;
// 24 octets are without the last.
type HVMVMCEData struct {
	Caps, Bank0, Bank1, ExtCtl uint64
}

// Decode sets d from the entry's data.
func (d *HVMVMCEData) Decode(c *record.Cursor) error {
	*d = HVMVMCEData{Caps: c.U64(), Bank0: c.U64(), Bank1: c.U64()}
	if c.Left() != 0 {
		d.ExtCtl = c.U64()
	}
	return c.Done()
}

// HVMTSCAdjustData is TSC_ADJUST, 8 octets: the IA32_TSC_ADJUST of a vCPU.
type HVMTSCAdjustData struct{ TSCAdjust uint64 }

// Decode sets d from the entry's data.
func (d *HVMTSCAdjustData) Decode(c *record.Cursor) error {
	d.TSCAdjust = c.U64()
	return c.Done()
}

// View is e's data as a struct, or nil for a code that has none here.
func (e *HVMEntry) View() (Decoder, error) {
	var v Decoder
	switch e.Code {
	case HVMHeader:
		v = new(HVMHeaderData)
	case HVMCPU:
		v = new(HVMCPUData)
	case HVMLAPIC:
		v = new(HVMLAPICData)
	case HVMMTRR:
		v = new(HVMMTRRData)
	case HVMCPUXSave:
		v = new(HVMXSaveData)
	case HVMVMCEVCPU:
		v = new(HVMVMCEData)
	case HVMTSCAdjust:
		v = new(HVMTSCAdjustData)
	case HVMCPUMSR:
		v = new(HVMMSRs)
	default:
		return nil, nil
	}
	if err := v.Decode(record.NewCursor(e.Data, record.Lenient)); err != nil {
		return nil, fmt.Errorf("%v %d: %w", e.Code, e.Instance, err)
	}
	return v, nil
}
