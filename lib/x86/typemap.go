package x86

import "xenferry/lib/guest"

// typeMap is one page type for each PFN from 0, four bits each: PFN n is in octet n/2, the even one low. A page nobody
// told of is guest.XTab.
type typeMap []byte

// grow makes room for frames PFNs. It never shrinks.
func (m *typeMap) grow(frames uint64) {
	old := len(*m)
	n := int((frames + 1) / 2)
	if n <= old {
		return
	}
	grown := make(typeMap, n)
	copy(grown, *m)
	for i := old; i < n; i++ {
		grown[i] = byte(guest.XTab)<<4 | byte(guest.XTab)
	}
	*m = grown
}

// get is p's type. Any p is allowed.
func (m typeMap) get(p guest.PFN) guest.PageType {
	if uint64(p)/2 >= uint64(len(m)) {
		return guest.XTab
	}
	return guest.PageType(m[p/2] >> (p % 2 * 4) & 0xF)
}

// set makes t the type of p, which must be within the length.
func (m typeMap) set(p guest.PFN, t guest.PageType) {
	shift := p % 2 * 4
	m[p/2] = m[p/2]&^(0xF<<shift) | byte(t)<<shift
}

// mixed reports whether some of the PFNs from first up to end are pages and some are not.
func (m typeMap) mixed(first, end uint64) bool {
	pages := uint64(0)
	for p := first; p < end; p++ {
		if m.get(guest.PFN(p)).HasData() {
			pages++
		}
	}
	return pages != 0 && pages != end-first
}
