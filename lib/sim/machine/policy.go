package machine

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// noSubleaf marks a leaf without subleaves.
const noSubleaf = 0xFFFFFFFF

// policy is a domain's CPU policy: leaves and MSRs in ascending order.
type policy struct {
	leaves []guest.CPUIDLeaf
	msrs   []guest.MSR
}

// defaultPolicy is what a domain sees before a policy is loaded: the least that every processor has.
func defaultPolicy() policy {
	return policy{
		leaves: []guest.CPUIDLeaf{
			{Leaf: 0, Subleaf: noSubleaf, A: 1, B: 0x756E6547, C: 0x6C65746E, D: 0x49656E69}, // GenuineIntel
			{Leaf: 1, Subleaf: noSubleaf},
			{Leaf: 0x80000000, Subleaf: noSubleaf, A: 0x80000000},
		},
		msrs: []guest.MSR{{Index: 0xCE}},
	}
}

// subleaves is how many subleaves of a leaf a policy may name; 0 for a leaf without.
func subleaves(leaf uint32) uint32 {
	switch leaf {
	case 0x4:
		return 6
	case 0x7, 0xB, 0x14:
		return 3
	case 0xD:
		return 64
	}
	return 0
}

// knownLeaf reports whether Xen's policies have room for a leaf.
func knownLeaf(l guest.CPUIDLeaf) bool {
	if n := subleaves(l.Leaf); n > 0 {
		return l.Subleaf < n
	}
	if l.Subleaf != noSubleaf {
		return false
	}
	switch l.Leaf >> 16 {
	case 0:
		return l.Leaf <= 0x1F
	case 0x4000:
		return l.Leaf&^0x100 == 0x40000000
	case 0x8000:
		return l.Leaf <= 0x80000022
	}
	return false
}

// policyMSRs are the MSRs that a policy has: PLATFORM_INFO and ARCH_CAPABILITIES.
var policyMSRs = [...]uint32{0xCE, 0x10A}

// CPUPolicy is what a domain sees of its processor, in ascending order.
func (m *Machine) CPUPolicy(id guest.DomID) (p guest.CPUPolicy, err error) {
	err = m.with("get CPU policy of", id, func(d *domain) error {
		p = guest.CPUPolicy{Leaves: slices.Clone(d.policy.leaves), MSRs: slices.Clone(d.policy.msrs)}
		return nil
	})
	return p, err
}

// SetCPUPolicy merges p into what is there, all or nothing, before the domain first runs.
func (m *Machine) SetCPUPolicy(id guest.DomID, p guest.CPUPolicy) error {
	return m.with("set CPU policy of", id, func(d *domain) error {
		if d.ran {
			return refuse(unix.EEXIST, "it has run already")
		}
		n := policy{slices.Clone(d.policy.leaves), slices.Clone(d.policy.msrs)}
		for _, l := range p.Leaves {
			if !knownLeaf(l) {
				return refuse(unix.ERANGE, "leaf %#x, subleaf %#x is not known", l.Leaf, l.Subleaf)
			}
			n.leaves = put(n.leaves, l, func(a, b guest.CPUIDLeaf) int {
				return cmp.Or(cmp.Compare(a.Leaf, b.Leaf), cmp.Compare(a.Subleaf, b.Subleaf))
			})
		}
		for _, s := range p.MSRs {
			switch {
			case !slices.Contains(policyMSRs[:], s.Index):
				return refuse(unix.ERANGE, "MSR %#x is not known", s.Index)
			case s.Flags != 0:
				return refuse(unix.EINVAL, "MSR %#x has flags %#x", s.Index, s.Flags)
			}
			n.msrs = put(n.msrs, s, func(a, b guest.MSR) int { return cmp.Compare(a.Index, b.Index) })
		}
		d.policy = n
		return nil
	})
}

// put adds e to an ordered list, in place of an equal element.
func put[E any](list []E, e E, order func(a, b E) int) []E {
	i, there := slices.BinarySearchFunc(list, e, order)
	if there {
		list[i] = e
		return list
	}
	return slices.Insert(list, i, e)
}
