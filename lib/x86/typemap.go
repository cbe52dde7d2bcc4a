package x86

import (
	"bytes"

	"xenferry/lib/guest"
)

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

// setRun makes t the type of n PFNs from first on, which must be within the length.
func (m typeMap) setRun(first guest.PFN, n int, t guest.PageType) {
	end := first + guest.PFN(n)
	for ; first < end && first%2 != 0; first++ {
		m.set(first, t)
	}
	whole := m[first/2 : max(first/2, end/2)]
	for i := range whole {
		whole[i] = byte(t)<<4 | byte(t)
	}
	if first < end && end%2 != 0 {
		m.set(end-1, t)
	}
}

// pages is how many of the PFNs from first, an even number, up to end are pages.
func (m typeMap) pages(first, end uint64) (n uint64) {
	if all := m[first/2 : end/2]; end%2 == 0 && len(all) > 0 && all[0]>>4 == all[0]&0xF && bytes.Equal(all[1:], all[:len(all)-1]) {
		if !m.get(guest.PFN(first)).HasData() { // they are of one type, as most are
			return 0
		}
		return end - first
	}
	for p := first; p < end; p++ {
		if m.get(guest.PFN(p)).HasData() {
			n++
		}
	}
	return n
}
