package x86

import (
	"errors"
	"fmt"

	"xenferry/lib/guest"
)

// A page table is 512 entries of 8 octets, at every level and for both sizes of guest.
const (
	entriesPerTable = 512

	ptePresent = 1 << 0
	ptePSE     = 1 << 7             // above level 1: maps a large page
	pteFrame   = 0x000FFFFFFFFFF000 // bits 12-51
)

// The slots of page tables that are Xen's own.
const (
	xenFirstL4, xenLastL4 = 256, 271 // of a 64-bit guest's L4
	xenFirstL3            = 4        // of a 32-bit guest's L3, which has but 4 entries
	xenFirstL2            = 428      // of that L2 of a 32-bit guest that maps the compatibility M2P
)

// errPSE is a large page, which Xen gives no PV guest.
var errPSE = errors.New("maps a large page")

// tableError says which entry of a page table could not be translated.
type tableError struct {
	slot int
	pte  uint64
	err  error
}

func (e *tableError) Error() string {
	return fmt.Sprintf("slot %d (PTE %#x): %v", e.slot, e.pte, e.err)
}

func (e *tableError) Unwrap() error { return e.err }

// normalise copies the page table src to dst with PFNs for MFNs and nothing in Xen's slots, so that it means the same
// on every host. src may change meanwhile; each entry is read once. An error is a *tableError.
func (l *pvLayout) normalise(dst, src []byte, level int, compat guest.MFN, pfn func(guest.MFN) (guest.PFN, error)) error {
	if level > l.levels {
		return &tableError{0, loadWord64(src, 0), fmt.Errorf("a level %d page table in a guest with %d levels", level, l.levels)}
	}
	xenFirst, xenEnd := l.xenSlots(src, level, compat)
	for slot := range entriesPerTable {
		if slot >= xenFirst && slot < xenEnd {
			le.PutUint64(dst[slot*8:], 0)
			continue
		}
		pte := loadWord64(src, slot)
		if pte&ptePresent != 0 {
			if level > 1 && pte&ptePSE != 0 {
				return &tableError{slot, pte, errPSE}
			}
			p, err := pfn(guest.MFN(pte & pteFrame >> guest.PageShift))
			if err != nil {
				return &tableError{slot, pte, err}
			}
			pte = pte&^pteFrame | uint64(p)<<guest.PageShift
		}
		le.PutUint64(dst[slot*8:], pte)
	}
	return nil
}

// xenSlots is the range of slots that hold Xen's own entries, empty for none.
func (l *pvLayout) xenSlots(src []byte, level int, compat guest.MFN) (first, end int) {
	switch {
	case l.width == 8 && level == 4:
		return xenFirstL4, xenLastL4 + 1
	case l.width == 4 && level == 3:
		return xenFirstL3, entriesPerTable
	case l.width == 4 && level == 2:
		// Only one of a guest's L2 tables has them; it is known by where its first entry leads.
		if guest.MFN(loadWord64(src, xenFirstL2)&pteFrame>>guest.PageShift) == compat {
			return xenFirstL2, entriesPerTable
		}
	}
	return 0, 0
}

// references calls f for the frame number of each present entry, until f fails.
func references(table []byte, f func(frame uint64) error) error {
	for slot := range entriesPerTable {
		if pte := le.Uint64(table[slot*8:]); pte&ptePresent != 0 {
			if err := f(pte & pteFrame >> guest.PageShift); err != nil {
				return &tableError{slot, pte, err}
			}
		}
	}
	return nil
}

// localise is the inverse of normalise, in place: it gives each present entry the MFN of its PFN.
func localise(table []byte, mfn func(guest.PFN) guest.MFN) error {
	for slot := range entriesPerTable {
		pte := le.Uint64(table[slot*8:])
		if pte&ptePresent == 0 {
			continue
		}
		m := mfn(guest.PFN(pte & pteFrame >> guest.PageShift))
		if m == guest.InvalidMFN {
			return &tableError{slot, pte, errors.New("the PFN has no frame")}
		}
		le.PutUint64(table[slot*8:], pte&^pteFrame|uint64(m)<<guest.PageShift)
	}
	return nil
}
