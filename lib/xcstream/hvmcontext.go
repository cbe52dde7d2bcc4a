package xcstream

import (
	"fmt"

	"xenferry/lib/guest"
	"xenferry/lib/record"
)

// HVMCode is the type of an entry in an HVM context.
type HVMCode uint16

// The codes that exist. HVMEnd is the last entry, HVMHeader the first; those between ascend in what Xen writes.
const (
	HVMEnd            HVMCode = 0
	HVMHeader         HVMCode = 1
	HVMCPU            HVMCode = 2
	HVMPIC            HVMCode = 3
	HVMIOAPIC         HVMCode = 4
	HVMLAPIC          HVMCode = 5
	HVMLAPICRegs      HVMCode = 6
	HVMPCIIRQ         HVMCode = 7
	HVMISAIRQ         HVMCode = 8
	HVMPCILink        HVMCode = 9
	HVMPIT            HVMCode = 10
	HVMRTC            HVMCode = 11
	HVMHPET           HVMCode = 12
	HVMPMTimer        HVMCode = 13
	HVMMTRR           HVMCode = 14
	HVMViridianDomain HVMCode = 15
	HVMCPUXSave       HVMCode = 16
	HVMViridianVCPU   HVMCode = 17
	HVMVMCEVCPU       HVMCode = 18
	HVMTSCAdjust      HVMCode = 19
	HVMCPUMSR         HVMCode = 20
)

// hvmLength is the native length of an entry from a release on.
type hvmLength struct {
	since  guest.Release
	length int
}

// hvmKind is what is known of a code. Lengths are those of Xen 4.6 and later, the oldest first.
type hvmKind struct {
	name    string
	lengths []hvmLength // none: any length of at least min
	min     int
	// zeroExtends is the release from which the loader takes less than its native length, and zeros for the rest.
	zeroExtends guest.Release
}

var never = guest.Release{Major: 1 << 31}

func fixed(name string, length int) hvmKind {
	return hvmKind{name: name, lengths: []hvmLength{{guest.Release{}, length}}, zeroExtends: never}
}

// hvmKinds is indexed by HVMCode. Source: xen/include/public/arch-x86/hvm/save.h of each release.
var hvmKinds = [...]hvmKind{
	HVMEnd:            fixed("END", 0),
	HVMHeader:         fixed("HEADER", 24),
	HVMCPU:            {name: "CPU", lengths: []hvmLength{{guest.Release{}, 1024}, {guest.Release{Major: 4, Minor: 7}, 1032}}, zeroExtends: guest.Release{Major: 4, Minor: 7}},
	HVMPIC:            fixed("PIC", 8),
	HVMIOAPIC:         fixed("IOAPIC", 400),
	HVMLAPIC:          {name: "LAPIC", lengths: []hvmLength{{guest.Release{}, 24}, {guest.Release{Major: 4, Minor: 18}, 32}}},
	HVMLAPICRegs:      fixed("LAPIC_REGS", 1024),
	HVMPCIIRQ:         fixed("PCI_IRQ", 16),
	HVMISAIRQ:         fixed("ISA_IRQ", 8),
	HVMPCILink:        fixed("PCI_LINK", 8),
	HVMPIT:            fixed("PIT", 56),
	HVMRTC:            {name: "RTC", lengths: []hvmLength{{guest.Release{}, 16}, {guest.Release{Major: 4, Minor: 14}, 24}}, zeroExtends: guest.Release{Major: 4, Minor: 14}},
	HVMHPET:           fixed("HPET", 1048),
	HVMPMTimer:        fixed("PMTIMER", 8),
	HVMMTRR:           fixed("MTRR", 240),
	HVMViridianDomain: {name: "VIRIDIAN_DOMAIN", lengths: []hvmLength{{guest.Release{}, 32}}},
	HVMCPUXSave:       {name: "CPU_XSAVE", min: hvmXSaveHeader + 576},
	HVMViridianVCPU: {name: "VIRIDIAN_VCPU", lengths: []hvmLength{{guest.Release{}, 8}, {guest.Release{Major: 4, Minor: 7}, 16},
		{guest.Release{Major: 4, Minor: 13}, 216}}, zeroExtends: guest.Release{Major: 4, Minor: 7}},
	HVMVMCEVCPU:  {name: "VMCE_VCPU", lengths: []hvmLength{{guest.Release{}, 24}, {guest.Release{Major: 4, Minor: 10}, 32}}},
	HVMTSCAdjust: fixed("TSC_ADJUST", 8),
	HVMCPUMSR:    {name: "CPU_MSR", min: 8},
}

// String is the code's name in Xen's headers, or its number.
func (c HVMCode) String() string {
	if int(c) < len(hvmKinds) {
		return hvmKinds[c].name
	}
	return fmt.Sprintf("HVM entry %d", uint16(c))
}

// hvmDescriptorSize is the size in octets of what stands before an entry's data.
const hvmDescriptorSize = 8

// HVMEntry is one entry of an HVM context.
type HVMEntry struct {
	Code     HVMCode
	Instance uint16 // the vCPU for what is per vCPU; the chip for PIC
	Offset   int    // of the descriptor in the blob; the data is 8 octets behind
	Data     []byte // in the blob
}

// ParseHVMContext cuts the body of an HVM_CONTEXT into its entries, which point into blob. Each is a descriptor of 8
// octets and its data:
//
//	0  typecode  u16
//	2  instance  u16
//	4  length    u32  of the data
//
// The first must be HEADER with its magic and version, the last END, with nothing behind. Errors: ErrLength, ErrValue
// and ErrMissing, each with the offset in blob. Lengths, order and presence of other entries are left to Check.
// Source: xen/include/public/hvm/save.h.
func ParseHVMContext(blob []byte) ([]HVMEntry, error) {
	var entries []HVMEntry
	for off := 0; ; {
		c := record.NewCursor(blob[off:], record.Strict)
		e := HVMEntry{Code: HVMCode(c.U16()), Instance: c.U16(), Offset: off}
		length := c.U32()
		if c.Err() != nil {
			if len(blob) == off {
				return nil, fmt.Errorf("HVM context, offset %#x: %w: %v", off, record.ErrMissing, HVMEnd)
			}
			return nil, fmt.Errorf("HVM context, offset %#x: %w: %d octets of a descriptor", off, record.ErrLength, len(blob)-off)
		}
		if uint64(length) > uint64(c.Left()) {
			return nil, fmt.Errorf("HVM context, offset %#x: %v %d: %w: %d octets, %d are left",
				off, e.Code, e.Instance, record.ErrLength, length, c.Left())
		}
		e.Data = c.Bytes(int(length))
		off += hvmDescriptorSize + int(length)
		if err := e.checkFrame(len(entries) == 0, len(blob)-off); err != nil {
			return nil, fmt.Errorf("HVM context, offset %#x: %v %d: %w", e.Offset, e.Code, e.Instance, err)
		}
		entries = append(entries, e)
		if e.Code == HVMEnd {
			return entries, nil
		}
	}
}

// checkFrame holds e against its place: first or not, and how many octets are behind it.
func (e *HVMEntry) checkFrame(first bool, behind int) error {
	switch {
	case first && e.Code != HVMHeader:
		return fmt.Errorf("%w: the first entry must be %v", record.ErrMissing, HVMHeader)
	case !first && e.Code == HVMHeader:
		return fmt.Errorf("%w: comes again", record.ErrValue)
	case first:
		var h HVMHeaderData
		return h.Decode(record.NewCursor(e.Data, record.Strict))
	case e.Code == HVMEnd && len(e.Data) != 0:
		return fmt.Errorf("%w: %d octets, want none", record.ErrLength, len(e.Data))
	case e.Code == HVMEnd && behind != 0:
		return fmt.Errorf("%w: %d octets behind it", record.ErrLength, behind)
	}
	return nil
}

// AppendHVMContext is the inverse of ParseHVMContext. Offsets are not looked at; entries end with HVMEnd.
func AppendHVMContext(b []byte, entries []HVMEntry) []byte {
	for _, e := range entries {
		b = le.AppendUint16(b, uint16(e.Code))
		b = le.AppendUint16(b, e.Instance)
		b = le.AppendUint32(b, uint32(len(e.Data)))
		b = append(b, e.Data...)
	}
	return b
}

// CheckHVMContext looks for what no release of Xen writes: a code that does not exist, codes that do not ascend, an
// instance that comes again, a length that no release knows. The errors are ErrUnknown, ErrUnusual and ErrLength.
func CheckHVMContext(entries []HVMEntry) error {
	for i, e := range entries {
		err := e.checkLength()
		switch {
		case err != nil || e.Code == HVMEnd || i == 0:
		case e.Code < entries[i-1].Code:
			err = fmt.Errorf("%w: comes after %v", record.ErrUnusual, entries[i-1].Code)
		case e.Code == entries[i-1].Code && e.Instance <= entries[i-1].Instance:
			err = fmt.Errorf("%w: comes after instance %d", record.ErrUnusual, entries[i-1].Instance)
		}
		if err != nil {
			return fmt.Errorf("HVM context, offset %#x: %v %d: %w", e.Offset, e.Code, e.Instance, err)
		}
	}
	return nil
}

func (e *HVMEntry) checkLength() error {
	if int(e.Code) >= len(hvmKinds) {
		return record.ErrUnknown
	}
	k := &hvmKinds[e.Code]
	if k.lengths == nil && len(e.Data) >= k.min || e.Code == HVMCPU && len(e.Data) == hvmCPUCompatSize {
		return nil
	}
	for _, l := range k.lengths {
		if len(e.Data) == l.length {
			return nil
		}
	}
	return fmt.Errorf("%w: no release writes %d octets", record.ErrLength, len(e.Data))
}

// HVMLength is the native length of an entry on a release, in octets; 0 for those of variable length, for END and for
// codes that do not exist. LAPIC grew in the point releases 4.18.5, 4.19.2 and 4.20.1: the answer is for these.
func HVMLength(c HVMCode, r guest.Release) (length int) {
	if int(c) >= len(hvmKinds) {
		return 0
	}
	for _, l := range hvmKinds[c].lengths {
		if r.AtLeast(l.since.Major, l.since.Minor) {
			length = l.length
		}
	}
	return length
}

// LoadableBy is nil if a Xen of release r takes an entry of e's code and length, else ErrUnknown or ErrLength. Of a
// release whose point releases differ (LAPIC, see HVMLength) it speaks for the newest.
func (e *HVMEntry) LoadableBy(r guest.Release) error {
	if int(e.Code) >= len(hvmKinds) {
		return fmt.Errorf("%v %d: %w", e.Code, e.Instance, record.ErrUnknown)
	}
	k := &hvmKinds[e.Code]
	have, native := len(e.Data), HVMLength(e.Code, r)
	switch {
	case k.lengths == nil && have >= k.min, k.lengths != nil && have == native:
		return nil
	case e.Code == HVMCPU && have == hvmCPUCompatSize:
		return nil
	case k.lengths != nil && have < native && r.AtLeast(k.zeroExtends.Major, k.zeroExtends.Minor):
		return nil
	}
	return fmt.Errorf("%v %d: %w: %d octets, Xen %v takes %d", e.Code, e.Instance, record.ErrLength, have, r, max(native, k.min))
}
