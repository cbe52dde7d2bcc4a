package xcstream

import (
	"bytes"
	"fmt"

	"xenferry/lib/guest"
	"xenferry/lib/record"
)

// PVInfo is X86_PV_INFO (type 0x02). Body, 8 octets:
//
//	0  guest_width  u8  octets of a word: 4 or 8
//	1  pt_levels    u8  levels of page table: 3 with width 4, 4 with width 8
//	2  (reserved)   6 octets
//
// Errors: ErrValue for another pair; a longer body is an error in strict mode only. Spec: X86_PV_INFO.
type PVInfo struct{ Width, Levels uint8 }

// Append adds i's body to b.
func (i PVInfo) Append(b []byte) []byte { return append(b, i.Width, i.Levels, 0, 0, 0, 0, 0, 0) }

// Decode sets i from the body under c.
func (i *PVInfo) Decode(c *record.Cursor) error {
	i.Width, i.Levels = c.U8(), c.U8()
	c.Reserved(6)
	if *i != (PVInfo{4, 3}) && *i != (PVInfo{8, 4}) {
		c.Failf("width %d with %d levels: want 4 with 3 or 8 with 4", i.Width, i.Levels)
	}
	if !c.Strict() {
		c.Rest() // stock restore asks only for 8 octets
	}
	return c.Done()
}

// P2MFrames is X86_PV_P2M_FRAMES (type 0x03), which frames hold the guest's P2M. Body:
//
//	0  start_pfn  u32  first PFN that the frames describe
//	4  end_pfn    u32  last, inclusive
//	8  p2m_pfn    u64 each: the PFNs of the P2M's own frames start/fpp to end/fpp, fpp = 4096/width
//
// Decode leaves the count of frames to Check, as only X86_PV_INFO tells the width. Spec: X86_PV_P2M_FRAMES.
type P2MFrames struct {
	Start, End uint32
	Frames     []guest.PFN
}

// Append adds f's body to b.
func (f P2MFrames) Append(b []byte) []byte {
	b = le.AppendUint32(le.AppendUint32(b, f.Start), f.End)
	for _, p := range f.Frames {
		b = le.AppendUint64(b, uint64(p))
	}
	return b
}

// Decode sets f from the body under c.
func (f *P2MFrames) Decode(c *record.Cursor) error {
	f.Start, f.End = c.U32(), c.U32()
	f.Frames = make([]guest.PFN, c.Left()/8)
	for i := range f.Frames {
		f.Frames[i] = guest.PFN(c.U64())
	}
	if f.Start > f.End {
		c.Failf("start_pfn %#x is above end_pfn %#x", f.Start, f.End)
	}
	return c.Done()
}

// Check holds the number of frames against a guest word of width octets.
func (f *P2MFrames) Check(width int) error {
	fpp := uint32(guest.PageSize / width)
	if want := uint64(f.End/fpp) - uint64(f.Start/fpp) + 1; uint64(len(f.Frames)) != want {
		return fmt.Errorf("%w: PFNs %#x to %#x of width %d need %d P2M frames, not %d", record.ErrLength, f.Start, f.End, width, want, len(f.Frames))
	}
	return nil
}

// Sizes in octets of what the vCPU records hold.
const (
	VCPUContextSize64 = 5168 // vcpu_guest_context of a 64-bit guest
	VCPUContextSize32 = 2800 // and of a 32-bit one
	MaxVCPUExtended   = 128
	MinVCPUXSave      = 16
)

// VCPU is the body of X86_PV_VCPU_BASIC, _EXTENDED, _XSAVE and _MSRS (types 0x04, 0x05, 0x06, 0x0C):
//
//	0  vcpu_id     u32
//	4  (reserved)  u32
//	8  context     opaque: vcpu_guest_context, xen_domctl_ext_vcpucontext, xcr0 with XSAVE image, xen_domctl_vcpu_msr each
//
// An empty context decodes (savers of Xen 4.6 to 4.8 wrote such, erratum 1); nobody shall write one.
// Spec: X86_PV_VCPU_BASIC and the three after it.
type VCPU struct {
	ID      uint32
	Context []byte
}

// Append adds v's body to b.
func (v VCPU) Append(b []byte) []byte {
	return append(append(le.AppendUint32(b, v.ID), 0, 0, 0, 0), v.Context...)
}

// Decode sets v from the body under c.
func (v *VCPU) Decode(c *record.Cursor) error {
	v.ID = c.U32()
	c.Reserved(4)
	v.Context = bytes.Clone(c.Rest())
	return c.Done()
}

// Check holds the context's length against the rules of record type t for a guest word of width octets. An empty
// context passes.
func (v *VCPU) Check(t Type, width int) error {
	n := len(v.Context)
	bad := false
	switch want := VCPUContextSize64; {
	case n == 0:
	case t == TypeX86PVVCPUBasic:
		if width == 4 {
			want = VCPUContextSize32
		}
		bad = n != want
	case t == TypeX86PVVCPUExtended:
		bad = n > MaxVCPUExtended
	case t == TypeX86PVVCPUXSave:
		bad = n < MinVCPUXSave
	case t == TypeX86PVVCPUMSRs:
		bad = n%16 != 0
	}
	if bad {
		return fmt.Errorf("%w: context of vCPU %d has %d octets", record.ErrLength, v.ID, n)
	}
	return nil
}

// DecodeMSRs reads the context of an X86_PV_VCPU_MSRS: entries of u32 index, u32 reserved, u64 value.
func (v *VCPU) DecodeMSRs(mode record.Mode) ([]guest.MSR, error) {
	var p MSRPolicy
	err := p.Decode(record.NewCursor(v.Context, mode))
	return p, err
}

// AppendMSRs is the inverse of DecodeMSRs.
func AppendMSRs(b []byte, msrs []guest.MSR) []byte { return MSRPolicy(msrs).Append(b) }

// SharedInfo is SHARED_INFO (type 0x07): the guest's shared_info page, exactly 4096 octets. Spec: SHARED_INFO.
type SharedInfo []byte

// Append adds the page to b.
func (s SharedInfo) Append(b []byte) []byte { return append(b, s...) }

// Decode sets s to a copy of the body under c.
func (s *SharedInfo) Decode(c *record.Cursor) error {
	*s = bytes.Clone(c.Bytes(guest.PageSize))
	return c.Done()
}
