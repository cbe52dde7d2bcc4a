package guestos

import (
	"encoding/json"
	"fmt"
	"hash/crc64"
	"slices"

	"xenferry/lib/guest"
)

// Range is a run of page frames that the guest has RAM at.
type Range struct {
	First guest.PFN `json:"first"`
	Count uint64    `json:"count"`
}

// Layout is what a guest's kernel knows of itself and never changes. It is in guest memory, in the info page.
type Layout struct {
	Options
	RAM        []Range     `json:"ram"`   // ascending; those of an HVM guest include its special pages
	Info       guest.PFN   `json:"info"`  // the info page
	Root       guest.PFN   `json:"root"`  // the kernel's top page table
	UserRoot   guest.PFN   `json:"user"`  // pv64: the top page table of user mode, in cr1
	UserL2     guest.PFN   `json:"l2"`    // the L2 that page-table churn hangs its tables in
	StartInfo  guest.PFN   `json:"start"` // PV
	Store      guest.PFN   `json:"store"`
	Console    guest.PFN   `json:"console"`
	GDT        []guest.PFN `json:"gdt"`           // PV: one page for each vCPU
	P2MTop     guest.PFN   `json:"top,omitempty"` // tree: the list of lists
	P2MLeaves  uint64      `json:"leaves"`        // PV: pages of the P2M
	Generation uint64      `json:"generation"`    // linear: p2m_generation
}

// The info page is at the address in vCPU 0's rbx, so that it is found through the guest's own page tables alone:
//
//	 0  magic     u64  infoMagic
//	 8  state     u32  State
//	12  suspends  u32  how often the guest suspended itself
//	16  restores  u32  how often it found itself in a new domain
//	20  length    u32  octets of the layout
//	24  sum       u64  CRC-64 of the layout
//	32  layout         JSON of Layout
const (
	infoMagic    = 0x6f666e6974736575
	infoState    = 8
	infoSuspends = 12
	infoRestores = 16
	infoLength   = 20
	infoSum      = 24
	infoLayout   = 32
)

// State is what the guest's kernel is about.
type State uint32

// The states: running, or suspended and not yet told that it runs again.
const (
	Running State = iota + 1
	Suspended
)

// String is the state's name in reports.
func (s State) String() string {
	switch s {
	case Running:
		return "running"
	case Suspended:
		return "suspended"
	}
	return fmt.Sprintf("state(%d)", uint32(s))
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// writeInfo fills the info page.
func writeInfo(page []byte, l *Layout) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if len(b) > len(page)-infoLayout {
		return fmt.Errorf("layout of %d octets does not fit the info page", len(b))
	}
	clear(page)
	le.PutUint64(page, infoMagic)
	le.PutUint32(page[infoState:], uint32(Running))
	le.PutUint32(page[infoLength:], uint32(len(b)))
	le.PutUint64(page[infoSum:], crc64.Checksum(b, crcTable))
	copy(page[infoLayout:], b)
	return nil
}

// readInfo reads the layout out of an info page.
func readInfo(page []byte) (*Layout, error) {
	if le.Uint64(page) != infoMagic {
		return nil, fmt.Errorf("no info page: magic %#x", le.Uint64(page))
	}
	n := le.Uint32(page[infoLength:])
	if n > guest.PageSize-infoLayout {
		return nil, fmt.Errorf("info page: layout of %d octets", n)
	}
	b := page[infoLayout : infoLayout+n]
	if crc64.Checksum(b, crcTable) != le.Uint64(page[infoSum:]) {
		return nil, fmt.Errorf("info page: wrong checksum")
	}
	l := new(Layout)
	if err := json.Unmarshal(b, l); err != nil {
		return nil, fmt.Errorf("info page: %w", err)
	}
	if err := l.normalize(); err != nil {
		return nil, fmt.Errorf("info page: %w", err)
	}
	return l, l.sane()
}

// sane refuses a layout that no guest was built with.
func (l *Layout) sane() error {
	if !slices.Equal(l.RAM, ram(&l.Options)) {
		return fmt.Errorf("info page: RAM at %v", l.RAM)
	}
	pfns := []guest.PFN{l.Info, l.Root, l.UserRoot, l.UserL2, l.StartInfo, l.Store, l.Console, l.P2MTop}
	for _, p := range append(pfns, l.GDT...) {
		if _, ok := l.index(p); !ok {
			return fmt.Errorf("info page: pfn %#x is not RAM", uint64(p))
		}
	}
	leaves, gdt := uint64(0), 0
	if l.Kind.PV() {
		leaves, gdt = l.p2mPages(), int(l.VCPUs)+1
	}
	if l.P2MLeaves != leaves || len(l.GDT) != gdt {
		return fmt.Errorf("info page: %d pages of P2M and %d of GDT, want %d and %d", l.P2MLeaves, len(l.GDT), leaves, gdt)
	}
	return nil
}

// p2mPages is how many pages a PV guest's P2M takes.
func (l *Layout) p2mPages() uint64 {
	perPage := uint64(guest.PageSize / l.Kind.Width())
	return (l.span() + perPage - 1) / perPage
}

// pages is how many pages of RAM there are, special pages included.
func (l *Layout) pages() (n uint64) {
	for _, r := range l.RAM {
		n += r.Count
	}
	return n
}

// index is p's place among the pages of RAM.
func (l *Layout) index(p guest.PFN) (uint64, bool) {
	at := uint64(0)
	for _, r := range l.RAM {
		if p >= r.First && uint64(p-r.First) < r.Count {
			return at + uint64(p-r.First), true
		}
		at += r.Count
	}
	return 0, false
}

// pfn is the inverse of index. i must be less than pages.
func (l *Layout) pfn(i uint64) guest.PFN {
	for _, r := range l.RAM {
		if i < r.Count {
			return r.First + guest.PFN(i)
		}
		i -= r.Count
	}
	return guest.InvalidPFN
}

// span is one more than the highest page frame.
func (l *Layout) span() uint64 {
	last := l.RAM[len(l.RAM)-1]
	return uint64(last.First) + last.Count
}

// Where an HVM guest's memory has holes, and where its special pages are, as Xen's domain builder lays them out.
const (
	vgaHole      = guest.PFN(0xA0)
	vgaHoleEnd   = guest.PFN(0xC0)
	mmioHole     = guest.PFN(0xF0000)
	highMemory   = guest.PFN(0x100000)
	specialPages = guest.PFN(0xFEFF8) // paging, access, sharing, bufioreq, xenstore, ioreq, identity page table, console
	ioreqPages   = specialPages - 8
)

// The special pages, from specialPages on.
const (
	specialPaging = iota
	specialAccess
	specialSharing
	specialBufIOReq
	specialStore
	specialIOReq
	specialIdentPT
	specialConsole
)

// ram lays out the RAM of a guest.
func ram(o *Options) []Range {
	if o.Kind.PV() {
		return []Range{{0, o.Pages}}
	}
	ranges := []Range{{0, uint64(vgaHole)}}
	left := o.Pages - uint64(vgaHole)
	low := min(left, uint64(mmioHole-vgaHoleEnd))
	ranges = append(ranges, Range{vgaHoleEnd, low}, Range{ioreqPages, special})
	if left > low {
		ranges = append(ranges, Range{highMemory, left - low})
	}
	return ranges
}
