package xcstream

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"xenferry/lib/record"
)

// Most rows of the order are streams in testkit. Here is what a stream does not show.

func TestInferStaticEnd(t *testing.T) {
	type step struct {
		t     Type
		infer bool
	}
	for _, row := range []struct {
		name    string
		version uint32
		domain  DomainType
		steps   []step
	}{
		{"version 2, PV", 2, DomainPV, []step{{TypeX86PVInfo, false}, {TypeX86PVP2MFrames, true}, {TypePageData, false}, {TypeX86PVP2MFrames, false}}},
		{"version 2, HVM", 2, DomainHVM, []step{{TypeX86TSCInfo, false}, {TypePageData, true}, {TypePageData, false}}},
		{"version 3", 3, DomainHVM, []step{{TypeStaticDataEnd, false}, {TypePageData, false}}},
		{"version 2 that has it", 2, DomainHVM, []step{{TypeStaticDataEnd, false}, {TypePageData, false}}},
	} {
		o := NewOrder(record.Lenient, row.version, row.domain)
		for i, s := range row.steps {
			if infer, err := o.Next(s.t); infer != s.infer || err != nil {
				t.Errorf("%s: step %d, %v: %v, %v", row.name, i, s.t, infer, err)
			}
		}
	}
}

// A record refused has not come: after the error the order is as before.
func TestOrderRefusalChangesNothing(t *testing.T) {
	o := NewOrder(record.Strict, Version3, DomainPV)
	for _, typ := range []Type{TypePageData, TypeX86PVP2MFrames, TypeEnd, 0x13, TypeHVMParams} {
		if _, err := o.Next(typ); err == nil || record.IsTolerable(err) {
			t.Fatalf("%v: %v", typ, err)
		}
	}
	for _, typ := range []Type{TypeX86PVInfo, TypeStaticDataEnd, TypeX86PVP2MFrames, TypePageData, TypeSharedInfo, TypeX86PVVCPUBasic} {
		if _, err := o.Next(typ); err != nil {
			t.Fatalf("%v: %v", typ, err)
		}
	}
	_, err := o.Next(TypeEnd)
	if !errors.Is(err, record.ErrMissing) || !strings.Contains(err.Error(), "X86_PV_VCPU_BASIC of vCPU 0") {
		t.Fatal(err)
	}
	if err := o.VCPU(TypeX86PVVCPUBasic, 0, VCPUContextSize64); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Next(TypeEnd); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Next(TypeX86TSCInfo); !errors.Is(err, record.ErrOrder) {
		t.Errorf("after END: %v", err)
	}
}

// A domain can be completed from its last CHECKPOINT, whatever came since.
func TestComplete(t *testing.T) {
	o := NewOrder(record.Lenient, Version3, DomainHVM)
	for _, typ := range []Type{TypeStaticDataEnd, TypePageData} {
		if _, err := o.Next(typ); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Complete(); !errors.Is(err, record.ErrMissing) {
		t.Error(err)
	}
	for _, typ := range []Type{TypeHVMContext, TypeCheckpoint, TypePageData} {
		if _, err := o.Next(typ); err != nil {
			t.Fatal(err)
		}
		if err := o.Complete(); err != nil {
			t.Errorf("after %v: %v", typ, err)
		}
	}
}

// Whatever strict mode takes, lenient mode takes, with the same end of static data.
func TestStrictIsPartOfLenient(t *testing.T) {
	types := make([]Type, 0, 22)
	for typ := range TypeX86MSRPolicy + 2 {
		types = append(types, typ)
	}
	types = append(types, TypeDomain, record.Optional|1)
	rapid.Check(t, func(t *rapid.T) {
		version := rapid.SampledFrom([]uint32{Version2, Version3}).Draw(t, "version")
		domain := rapid.SampledFrom([]DomainType{DomainPV, DomainHVM}).Draw(t, "domain")
		strict, lenient := NewOrder(record.Strict, version, domain), NewOrder(record.Lenient, version, domain)
		for range rapid.IntRange(0, 60).Draw(t, "length") {
			typ := rapid.SampledFrom(types).Draw(t, "type")
			infer, err := strict.Next(typ)
			if err != nil && !record.IsTolerable(err) {
				continue
			}
			if i, err := lenient.Next(typ); err != nil || i != infer {
				t.Fatalf("%v: strict takes it, lenient: %v, %v", typ, i, err)
			}
			switch typ {
			case TypeX86PVVCPUBasic, TypeX86PVVCPUXSave:
				id := rapid.Uint32Range(0, 2).Draw(t, "vcpu")
				_ = strict.VCPU(typ, id, 16)
				if err := lenient.VCPU(typ, id, 16); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
