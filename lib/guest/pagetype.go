package guest

import "fmt"

// PageType is the type of a page as PAGE_DATA carries it in the top four bits of an entry, which are also bits 28-31
// of Xen's XEN_DOMCTL_PFINFO_*: 0 to 4 and, with the pin bit (8), 9 to 12; 13 to 15 carry no data. 5 to 8 do not exist.
type PageType uint8

// The page types. A pinned table's type is its level with Pinned or-ed in.
const (
	NoTab  PageType = 0x0 // ordinary memory
	L1Tab  PageType = 0x1 // PV page table, lowest level
	L2Tab  PageType = 0x2
	L3Tab  PageType = 0x3
	L4Tab  PageType = 0x4
	Pinned PageType = 0x8 // pin bit, never alone
	Broken PageType = 0xD // broken memory: no data
	XAlloc PageType = 0xE // allocate only: no data, written by Xen 4.2 to 4.5
	XTab   PageType = 0xF // not there, or not RAM: no data
)

// Sets of types, type n being bit n: they are asked for page by page.
const (
	dataTypes  uint64 = 0b0001_1110_0001_1111
	validTypes        = dataTypes | 1<<Broken | 1<<XAlloc | 1<<XTab
)

// Valid reports whether t is a type that exists.
func (t PageType) Valid() bool { return validTypes>>t&1 != 0 }

// HasData reports whether 4096 octets of contents follow for a page of type t.
func (t PageType) HasData() bool { return dataTypes>>t&1 != 0 }

// Populates reports whether restoring t gives the domain a frame.
func (t PageType) Populates() bool { return t.HasData() || t == XAlloc }

// Level is 1 to 4 for a page table, pinned or not, else 0.
func (t PageType) Level() int {
	if !t.HasData() {
		return 0
	}
	return int(t &^ Pinned)
}

// IsPinned reports whether t is a pinned page table.
func (t PageType) IsPinned() bool { return t >= 0x9 && t <= 0xC }

// String is the type as Xen's headers name it, in small letters: notab, l1tab, l4tab+pin, xtab.
func (t PageType) String() string {
	switch {
	case t == NoTab:
		return "notab"
	case t.IsPinned():
		return fmt.Sprintf("l%dtab+pin", t.Level())
	case t <= L4Tab:
		return fmt.Sprintf("l%dtab", t)
	case t == Broken:
		return "broken"
	case t == XAlloc:
		return "xalloc"
	case t == XTab:
		return "xtab"
	}
	return fmt.Sprintf("type(%#x)", uint8(t))
}
