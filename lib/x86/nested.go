package x86

import (
	"context"

	"xenferry/lib/guest"
)

// The processor's offer of virtual machines: Intel's bit is in ecx of CPUID leaf 1, AMD's in ecx of leaf 0x80000001.
const (
	leafFeatures, bitVMX         = 1, 1 << 5
	leafExtendedFeatures, bitSVM = 0x80000001, 1 << 2
)

// Nested reports whether an HVM domain may run virtual machines of its own, whose state no stream can hold: stock Xen
// saves such a domain without them. Until 4.14 a parameter tells; later releases only show in the domain's CPU policy what
// its toolstack allowed.
func Nested(ctx context.Context, h Host, id guest.DomID) (bool, error) {
	if !h.Release().AtLeast(4, 15) {
		v, err := h.HVMParam(ctx, id, paramNestedHVM)
		return v != 0, err
	}
	p, err := h.CPUPolicy(ctx, id)
	for _, l := range p.Leaves {
		if l.Leaf == leafFeatures && l.C&bitVMX != 0 || l.Leaf == leafExtendedFeatures && l.C&bitSVM != 0 {
			return true, err
		}
	}
	return false, err
}
