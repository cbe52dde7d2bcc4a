package xcstream

import (
	"fmt"

	"xenferry/lib/guest"
	"xenferry/lib/record"
)

// PageEntry is one page in a PAGE_DATA: bits 0-51 the PFN, 52-59 reserved, 60-63 the type.
type PageEntry uint64

const pageEntryPFN = 1<<52 - 1

// NewPageEntry makes an entry of a PFN below 2^52 and its type.
func NewPageEntry(p guest.PFN, t guest.PageType) PageEntry {
	return PageEntry(uint64(p)&pageEntryPFN | uint64(t)<<60)
}

// PFN is the entry's frame number.
func (e PageEntry) PFN() guest.PFN { return guest.PFN(e & pageEntryPFN) }

// Type is the page's type. It may be one that does not exist.
func (e PageEntry) Type() guest.PageType { return guest.PageType(e >> 60) }

// Reserved is bits 52-59, zero in what any saver writes.
func (e PageEntry) Reserved() uint8 { return uint8(e >> 52) }

// PageDataSize is the size of a PAGE_DATA body in octets: 8 of count and reserved, 8 for each of entries, 4096 for
// each of pages.
func PageDataSize(entries, pages int) uint64 {
	return 8 + 8*uint64(entries) + guest.PageSize*uint64(pages)
}

// PageDataHeader is PAGE_DATA (type 0x01) without its pages:
//
//	0  count       u32  of entries, at least 1
//	4  (reserved)  u32
//	8  entries     count of PageEntry
//	then 4096 octets for each entry whose type has data, in the order of the entries
//
// Reader.PageData reads it and leaves the pages to be read to their place. Spec: PAGE_DATA.
type PageDataHeader struct {
	Entries []PageEntry
	Pages   int // entries with data
}

// add appends the entries whose octets are in b. A type that does not exist is an ErrValue, and in strict mode reserved
// bits are an ErrReserved that leaves all of b added.
func (h *PageDataHeader) add(b []byte, mode record.Mode) (err error) {
	for ; len(b) > 0; b = b[8:] {
		e, i := PageEntry(le.Uint64(b)), len(h.Entries)
		t := e.Type()
		switch {
		case !t.Valid():
			return fmt.Errorf("%w: entry %d, PFN %#x: page type %d does not exist", record.ErrValue, i, e.PFN(), t)
		case e.Reserved() != 0 && mode == record.Strict && err == nil:
			err = fmt.Errorf("%w: entry %d, PFN %#x: bits 52-59 are %#x", record.ErrReserved, i, e.PFN(), e.Reserved())
		}
		if t.HasData() {
			h.Pages++
		}
		h.Entries = append(h.Entries, e)
	}
	return err
}
