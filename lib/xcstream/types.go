package xcstream

import (
	"bytes"
	"fmt"

	"xenferry/lib/record"
)

// Type is a record's type.
type Type uint32

// The record types of the specification, and one of ours.
const (
	TypeEnd                    Type = 0x00
	TypePageData               Type = 0x01
	TypeX86PVInfo              Type = 0x02
	TypeX86PVP2MFrames         Type = 0x03
	TypeX86PVVCPUBasic         Type = 0x04
	TypeX86PVVCPUExtended      Type = 0x05
	TypeX86PVVCPUXSave         Type = 0x06
	TypeSharedInfo             Type = 0x07
	TypeX86TSCInfo             Type = 0x08
	TypeHVMContext             Type = 0x09
	TypeHVMParams              Type = 0x0A
	TypeToolstack              Type = 0x0B
	TypeX86PVVCPUMSRs          Type = 0x0C
	TypeVerify                 Type = 0x0D
	TypeCheckpoint             Type = 0x0E
	TypeCheckpointDirtyPFNList Type = 0x0F
	TypeStaticDataEnd          Type = 0x10
	TypeX86CPUIDPolicy         Type = 0x11
	TypeX86MSRPolicy           Type = 0x12

	// TypeDomain is ours and optional: a guest.Spec as JSON, so that a plain pipe says what domain to make.
	TypeDomain Type = record.Optional | 0x786601
)

var typeNames = map[Type]string{
	TypeEnd: "END", TypePageData: "PAGE_DATA", TypeX86PVInfo: "X86_PV_INFO", TypeX86PVP2MFrames: "X86_PV_P2M_FRAMES",
	TypeX86PVVCPUBasic: "X86_PV_VCPU_BASIC", TypeX86PVVCPUExtended: "X86_PV_VCPU_EXTENDED",
	TypeX86PVVCPUXSave: "X86_PV_VCPU_XSAVE", TypeSharedInfo: "SHARED_INFO", TypeX86TSCInfo: "X86_TSC_INFO",
	TypeHVMContext: "HVM_CONTEXT", TypeHVMParams: "HVM_PARAMS", TypeToolstack: "TOOLSTACK",
	TypeX86PVVCPUMSRs: "X86_PV_VCPU_MSRS", TypeVerify: "VERIFY", TypeCheckpoint: "CHECKPOINT",
	TypeCheckpointDirtyPFNList: "CHECKPOINT_DIRTY_PFN_LIST", TypeStaticDataEnd: "STATIC_DATA_END",
	TypeX86CPUIDPolicy: "X86_CPUID_POLICY", TypeX86MSRPolicy: "X86_MSR_POLICY", TypeDomain: "XENFERRY_DOMAIN",
}

// String is the type's name in the specification, or its number.
func (t Type) String() string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	if t.Optional() {
		return fmt.Sprintf("optional record %#x", uint32(t))
	}
	return fmt.Sprintf("record %#x", uint32(t))
}

// Optional reports whether a reader that does not know t may skip it.
func (t Type) Optional() bool { return t&record.Optional != 0 }

// IsVCPU reports whether t's body is a VCPU.
func (t Type) IsVCPU() bool {
	return t == TypeX86PVVCPUBasic || t == TypeX86PVVCPUExtended || t == TypeX86PVVCPUXSave || t == TypeX86PVVCPUMSRs
}

// Known reports whether t is one of the types above.
func (t Type) Known() bool { _, ok := typeNames[t]; return ok }

// Body is the body of a record.
type Body interface {
	// Append adds the body's octets to b. It cannot fail.
	Append(b []byte) []byte
}

// New returns a value to decode a record of type t into. It is a Raw for HVM_CONTEXT, TOOLSTACK and unknown types, and
// nil for PAGE_DATA, which is read by Reader.PageData.
func (t Type) New() Value {
	switch t {
	case TypePageData:
		return nil
	case TypeEnd, TypeVerify, TypeCheckpoint, TypeStaticDataEnd:
		return new(Empty)
	case TypeX86PVInfo:
		return new(PVInfo)
	case TypeX86PVP2MFrames:
		return new(P2MFrames)
	case TypeX86PVVCPUBasic, TypeX86PVVCPUExtended, TypeX86PVVCPUXSave, TypeX86PVVCPUMSRs:
		return new(VCPU)
	case TypeSharedInfo:
		return new(SharedInfo)
	case TypeX86TSCInfo:
		return new(TSCInfo)
	case TypeHVMParams:
		return new(HVMParams)
	case TypeX86CPUIDPolicy:
		return new(CPUIDPolicy)
	case TypeX86MSRPolicy:
		return new(MSRPolicy)
	case TypeCheckpointDirtyPFNList:
		return new(PFNList)
	case TypeDomain:
		return new(Domain)
	}
	return new(Raw)
}

// Value is a body that can be decoded and written.
type Value interface {
	Body
	Decoder
}

// Record is a record to be written. A nil Body is an empty one.
type Record struct {
	Type Type
	Body Body
}

// Raw is a body kept as its octets: SHARED_INFO's page, HVM_CONTEXT's blob, an unknown record's.
type Raw []byte

// Append adds the octets to b.
func (r Raw) Append(b []byte) []byte { return append(b, r...) }

// Decode sets r to a copy of the body under c.
func (r *Raw) Decode(c *record.Cursor) error {
	*r = bytes.Clone(c.Rest())
	return c.Done()
}
