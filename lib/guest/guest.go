// Package guest names what a domain is made of: frame numbers, page types, bitmaps of frames, mappings, and the
// values that a host tells or takes of a domain. It imports nothing of ours, so that hosts, guest types, stream
// formats and engines can all speak in its words.
package guest

import (
	"fmt"
	"math"
)

// A page is the unit of everything here: x86's smallest, 4096 octets.
const (
	PageShift = 12
	PageSize  = 1 << PageShift
)

// PFN is a guest-physical frame number: the guest's own, dense from 0. It is what the stream speaks of.
type PFN uint64

// GFN is a frame number as the toolstack-facing operations of Xen take it: a PFN for HVM and PVH domains, an MFN for
// PV domains.
type GFN uint64

// MFN is a machine frame number, the host's own.
type MFN uint64

// The values that stand for no frame.
const (
	InvalidPFN = PFN(math.MaxUint64)
	InvalidGFN = GFN(math.MaxUint64)
	InvalidMFN = MFN(math.MaxUint64)
)

// DomID is a domain's number on its host, 0 to 0x7FEF; larger ones are Xen's own.
type DomID uint16

// FirstReservedDomID and above are no domains (xen/include/public/xen.h, DOMID_*).
const FirstReservedDomID DomID = 0x7FF0

// Kind is the type of a guest, finer than the stream's PV and HVM: it fixes the width of page tables and whether
// an emulator is there.
type Kind uint8

// The kinds. A PVH guest is an HVM domain without emulated devices.
const (
	PV64 Kind = iota + 1
	PV32
	HVM
	PVH
)

var kindNames = [...]string{PV64: "pv64", PV32: "pv32", HVM: "hvm", PVH: "pvh"}

// String is the kind's name as options and files write it: pv64, pv32, hvm or pvh.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseKind is the inverse of String.
func ParseKind(s string) (Kind, error) {
	for k, n := range kindNames {
		if n != "" && n == s {
			return Kind(k), nil
		}
	}
	return 0, fmt.Errorf("unknown guest kind %q: want pv64, pv32, hvm or pvh", s)
}

// MarshalText writes the name, for JSON.
func (k Kind) MarshalText() ([]byte, error) {
	if k < PV64 || k > PVH {
		return nil, fmt.Errorf("no such guest kind: %d", uint8(k))
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads the name.
func (k *Kind) UnmarshalText(b []byte) (err error) {
	*k, err = ParseKind(string(b))
	return err
}

// PV reports whether a guest of the kind is paravirtual.
func (k Kind) PV() bool { return k == PV64 || k == PV32 }

// Width is the size in octets of a PV guest's machine word: 8, or 4 for PV32. It is 8 for HVM, which has no such.
func (k Kind) Width() int {
	if k == PV32 {
		return 4
	}
	return 8
}

// Levels is how many levels of page table a PV guest of the kind has: 4, or 3 for PV32.
func (k Kind) Levels() int {
	if k == PV32 {
		return 3
	}
	return 4
}

// Release is a Xen release, such as 4.17.
type Release struct{ Major, Minor uint32 }

// String is the release as Xen writes it: 4.17.
func (r Release) String() string { return fmt.Sprintf("%d.%d", r.Major, r.Minor) }

// AtLeast reports whether r is major.minor or newer.
func (r Release) AtLeast(major, minor uint32) bool {
	return r.Major > major || r.Major == major && r.Minor >= minor
}

// ParseRelease reads a release written as major.minor.
func ParseRelease(s string) (r Release, err error) {
	var rest string
	if n, _ := fmt.Sscanf(s+"\n", "%d.%d%s", &r.Major, &r.Minor, &rest); n != 2 {
		return Release{}, fmt.Errorf("%q is not a Xen release such as 4.17", s)
	}
	return r, nil
}
