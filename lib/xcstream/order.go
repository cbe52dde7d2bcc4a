package xcstream

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"xenferry/lib/record"
)

// Order is the order in which the records of one stream may come. Its owner asks Next before it takes a record's body,
// and tells VCPU of each vCPU record; Next(TypeEnd) also checks that nothing is missing.
//
// Lenient mode takes what stock restore takes:
//
//   - X86_PV_INFO once; STATIC_DATA_END once, and before X86_PV_P2M_FRAMES and PAGE_DATA. Version 2 has none: the
//     first of those two implies it.
//   - X86_PV_P2M_FRAMES and SHARED_INFO after X86_PV_INFO; a PV domain's PAGE_DATA after X86_PV_P2M_FRAMES.
//   - no PV record in an HVM stream and none of HVM in a PV stream; nothing mandatory that is unknown, TOOLSTACK and
//     CHECKPOINT_DIRTY_PFN_LIST included; nothing after END.
//   - unknown optional records, but none once a CHECKPOINT has come: stock restore buffers from there on and fails on them.
//   - by END: a page, and vCPU 0's X86_PV_VCPU_BASIC or an HVM_CONTEXT.
//
// Strict mode asks for more:
//
//   - X86_PV_INFO and the policies before STATIC_DATA_END, X86_TSC_INFO after it; version 2 has neither policies nor
//     STATIC_DATA_END, and X86_TSC_INFO anywhere.
//   - SHARED_INFO, vCPU records, HVM_CONTEXT, HVM_PARAMS and VERIFY after the first PAGE_DATA, in any mutual order.
//   - VERIFY not together with CHECKPOINT.
//   - SHARED_INFO by END, and a BASIC for each vCPU that has other state. Each CHECKPOINT ends a round that must have
//     all that END asks for.
//
// XENFERRY_DOMAIN, which is ours, comes once in either mode: after STATIC_DATA_END, before frames and pages.
//
// Whether CHECKPOINT may come at all is for the owner to know: a plain restore refuses it. The libxl records behind a
// CHECKPOINT are not seen here. Spec: Layout, and the C code where that is silent.
type Order struct {
	mode    record.Mode
	version uint32
	domain  DomainType

	static bool               // STATIC_DATA_END came or was implied
	ever   typeSet            // came in this stream
	round  typeSet            // came since the last CHECKPOINT
	vcpus  map[uint32]typeSet // vCPU records since the last CHECKPOINT, by vCPU
	vcpu0  bool               // vCPU 0 had a BASIC in this stream
}

// NewOrder returns the Order of a stream whose headers tell version and domain.
func NewOrder(mode record.Mode, version uint32, domain DomainType) *Order {
	return &Order{mode: mode, version: version, domain: domain, vcpus: map[uint32]typeSet{}}
}

// Next reports whether a record of type t may come now, and takes it as come. inferStaticEnd: a version 2 stream implies
// STATIC_DATA_END just before this record.
//
// Errors: record.ErrUnknown, record.ErrOrder, record.ErrMissing; and record.ErrUnusual, in strict mode only, for a
// repetition that stock restore takes and no saver writes: the record has then come all the same.
func (o *Order) Next(t Type) (inferStaticEnd bool, err error) {
	infer := o.version == Version2 && !o.static && (t == TypeX86PVP2MFrames || t == TypePageData)
	static := o.static || infer
	switch {
	case o.ever.has(TypeEnd):
		return false, fmt.Errorf("%w: after %v", record.ErrOrder, TypeEnd)
	case !t.Known() && !t.Optional():
		return false, record.ErrUnknown
	}
	reason := o.refuse(t, static)
	if reason == "" && o.mode == record.Strict {
		reason = o.refuseStrict(t, static)
	}
	if reason != "" {
		return false, fmt.Errorf("%w: %s", record.ErrOrder, reason)
	}
	if t == TypeEnd || t == TypeCheckpoint && o.mode == record.Strict {
		if err := o.Complete(); err != nil {
			return false, err
		}
	}
	if o.mode == record.Strict && onceARound.has(t) && o.round.has(t) {
		err = fmt.Errorf("%w: comes again", record.ErrUnusual)
	}
	o.static = static || t == TypeStaticDataEnd
	o.ever = o.ever.with(t)
	o.round = o.round.with(t)
	if t == TypeCheckpoint {
		o.round = 0
		clear(o.vcpus)
	}
	return infer, err
}

// refuse is why t may not come now in either mode, or empty.
func (o *Order) refuse(t Type, static bool) string {
	switch {
	case o.domain == DomainHVM && pvTypes.has(t), o.domain == DomainPV && hvmTypes.has(t):
		return fmt.Sprintf("the domain is %v", o.domain)
	case !t.Known() && o.ever.has(TypeCheckpoint):
		return fmt.Sprintf("stock restore fails on optional records after a %v", TypeCheckpoint)
	}
	switch t {
	case TypeToolstack:
		return "no restore takes it"
	case TypeCheckpointDirtyPFNList:
		return "goes from a COLO secondary to its primary only"
	case TypeX86PVInfo:
		return unless(!o.ever.has(t), "comes again")
	case TypeStaticDataEnd:
		return unless(!o.static, "static data ended before")
	case TypeX86PVP2MFrames:
		if !static {
			return "no STATIC_DATA_END before it"
		}
		return unless(o.ever.has(TypeX86PVInfo), "no X86_PV_INFO before it")
	case TypeSharedInfo:
		return unless(o.ever.has(TypeX86PVInfo), "no X86_PV_INFO before it")
	case TypePageData:
		if !static {
			return "no STATIC_DATA_END before it"
		}
		return unless(o.domain != DomainPV || o.ever.has(TypeX86PVP2MFrames), "no X86_PV_P2M_FRAMES before it")
	case TypeDomain:
		switch {
		case o.ever.has(t):
			return "comes again"
		case o.version != Version2 && !static:
			return "no STATIC_DATA_END before it"
		}
		return unless(!o.ever.has(TypeX86PVP2MFrames) && !o.ever.has(TypePageData), "too late to make a domain by")
	}
	return ""
}

// refuseStrict is why t, which stock restore would take, may not come now in strict mode, or empty.
func (o *Order) refuseStrict(t Type, static bool) string {
	switch t {
	case TypeStaticDataEnd:
		return unless(o.version != Version2, "a version 2 stream has none")
	case TypeX86CPUIDPolicy, TypeX86MSRPolicy:
		if o.version == Version2 {
			return "a version 2 stream has none"
		}
		return unless(!static, "static data has ended")
	case TypeX86PVInfo:
		return unless(!static, "static data has ended")
	case TypeX86TSCInfo:
		return unless(static || o.version == Version2, "no STATIC_DATA_END before it")
	case TypeCheckpoint:
		return unless(!o.ever.has(TypeVerify), "a stream with VERIFY has no checkpoints")
	case TypeVerify:
		if o.ever.has(TypeCheckpoint) {
			return "a stream with checkpoints has no VERIFY"
		}
		return unless(o.ever.has(TypePageData), "no PAGE_DATA before it")
	case TypeSharedInfo, TypeX86PVVCPUBasic, TypeX86PVVCPUExtended, TypeX86PVVCPUXSave, TypeX86PVVCPUMSRs,
		TypeHVMContext, TypeHVMParams:
		return unless(o.ever.has(TypePageData), "no PAGE_DATA before it")
	}
	return ""
}

func unless(ok bool, reason string) string {
	if ok {
		return ""
	}
	return reason
}

// VCPU takes note of a vCPU record: its type, the vCPU's number and how many octets of context it has. One without any
// (erratum 1 of the specification) does not count. The error is record.ErrUnusual, in strict mode, for one that comes
// again in its round.
func (o *Order) VCPU(t Type, id uint32, length int) error {
	if length <= 0 {
		return nil
	}
	had := o.vcpus[id]
	o.vcpus[id] = had.with(t)
	o.vcpu0 = o.vcpu0 || id == 0 && t == TypeX86PVVCPUBasic
	if o.mode == record.Strict && had.has(t) {
		return fmt.Errorf("%w: comes again for vCPU %d", record.ErrUnusual, id)
	}
	return nil
}

// Complete reports whether a domain can be made of what has come: nil, or record.ErrMissing with the names of what
// has not. Next asks it at END, and in strict mode at CHECKPOINT; who completes a domain from its last CHECKPOINT, as
// failover does, asks himself.
func (o *Order) Complete() error {
	strict := o.mode == record.Strict
	if strict && o.round == 0 && o.ever.has(TypeCheckpoint) {
		return nil // as complete as at that CHECKPOINT
	}
	state, vcpu0 := o.ever, o.vcpu0
	if strict {
		state, vcpu0 = o.round, o.vcpus[0].has(TypeX86PVVCPUBasic)
	}
	var missing []string
	need := func(have bool, t Type, what string) {
		if !have {
			missing = append(missing, t.String()+what)
		}
	}
	need(o.static || o.version == Version2, TypeStaticDataEnd, "")
	need(o.ever.has(TypePageData), TypePageData, "")
	if o.domain == DomainHVM {
		need(state.has(TypeHVMContext), TypeHVMContext, "")
	} else {
		need(o.ever.has(TypeX86PVInfo), TypeX86PVInfo, "")
		need(o.ever.has(TypeX86PVP2MFrames), TypeX86PVP2MFrames, "")
		need(!strict || state.has(TypeSharedInfo), TypeSharedInfo, "")
		need(vcpu0, TypeX86PVVCPUBasic, " of vCPU 0")
	}
	for _, id := range slices.Sorted(maps.Keys(o.vcpus)) {
		need(!strict || id == 0 || o.vcpus[id].has(TypeX86PVVCPUBasic), TypeX86PVVCPUBasic, fmt.Sprintf(" of vCPU %d", id))
	}
	if missing != nil {
		return fmt.Errorf("%w: %s", record.ErrMissing, strings.Join(missing, ", "))
	}
	return nil
}

// typeSet is a set of known types; others are never in it.
type typeSet uint32

func newTypeSet(types ...Type) (s typeSet) {
	for _, t := range types {
		s = s.with(t)
	}
	return s
}

func (s typeSet) bit(t Type) typeSet {
	switch {
	case t == TypeDomain:
		return 1 << 31
	case t <= TypeX86MSRPolicy:
		return 1 << t
	}
	return 0
}

func (s typeSet) has(t Type) bool     { return s&s.bit(t) != 0 }
func (s typeSet) with(t Type) typeSet { return s | s.bit(t) }

var (
	pvTypes = newTypeSet(TypeX86PVInfo, TypeX86PVP2MFrames, TypeSharedInfo,
		TypeX86PVVCPUBasic, TypeX86PVVCPUExtended, TypeX86PVVCPUXSave, TypeX86PVVCPUMSRs)
	hvmTypes = newTypeSet(TypeHVMContext, TypeHVMParams)
	// onceARound are the types that a saver writes at most once before END, or between two CHECKPOINTs.
	onceARound = newTypeSet(TypeX86CPUIDPolicy, TypeX86MSRPolicy, TypeX86TSCInfo, TypeSharedInfo, TypeHVMContext, TypeVerify)
)
