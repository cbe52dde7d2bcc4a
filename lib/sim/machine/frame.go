package machine

import (
	"math/rand/v2"
	"sync/atomic"

	"xenferry/lib/guest"
)

// Owners that are no domains. No frame of a free one or of Xen can be reached by anybody.
const (
	ownerNone guest.DomID = 0
	ownerXen  guest.DomID = 0x7FF2 // DOMID_XEN
)

// frameType is what a frame is in use as: Xen's PGT_* types, of which it has one at a time, with a count of its uses.
type frameType uint32

// The types. Types 1 to 4 are the levels of page tables.
const (
	typeNone     frameType = 0
	typeSegDesc  frameType = 5 // part of a GDT
	typeWritable frameType = 6 // mapped writably
)

var typeNames = [...]string{"unused", "an L1 table", "an L2 table", "an L3 table", "an L4 table", "part of a GDT", "mapped writably"}

func (t frameType) String() string { return typeNames[t] }

func (t frameType) table() bool { return t >= 1 && t <= 4 }

// frame is what is known of one machine frame. It is changed under Machine.mu only; info is also read without it.
type frame struct {
	info  uint32 // owner, type and flags, atomic
	types uint32 // uses as the type
	refs  uint32 // uses of any kind
}

// The fields of info.
const (
	infoOwner     = 0xFFFF
	infoTypeShift = 16
	infoType      = 7 << infoTypeShift
	infoPinned    = 1 << 20
	infoValidated = 1 << 21 // a page table whose entries have been checked and counted
	infoXenL2     = 1 << 22 // the PV32 L2 table with Xen's slots (PGT_pae_xen_l2)
	infoXenHeap   = 1 << 23 // Xen's own memory, shared with the owner: shared_info
)

func (f *frame) load() uint32        { return atomic.LoadUint32(&f.info) }
func (f *frame) owner() guest.DomID  { return guest.DomID(f.load() & infoOwner) }
func (f *frame) typ() frameType      { return frameType(f.load() & infoType >> infoTypeShift) }
func (f *frame) is(flag uint32) bool { return f.load()&flag != 0 }
func (f *frame) set(flag uint32)     { atomic.StoreUint32(&f.info, f.info|flag) }
func (f *frame) clear(flag uint32)   { atomic.StoreUint32(&f.info, f.info&^flag) }
func (f *frame) setType(t frameType) {
	atomic.StoreUint32(&f.info, f.info&^infoType|uint32(t)<<infoTypeShift)
}
func (f *frame) reset(owner guest.DomID) {
	f.types, f.refs = 0, 0
	atomic.StoreUint32(&f.info, uint32(owner))
}

// pageType is the frame's type as getpageframeinfo3 tells it.
func (f *frame) pageType() guest.PageType {
	switch info := f.load(); {
	case info&infoXenHeap != 0:
		return guest.XTab
	case !f.typ().table() || info&(infoValidated|infoPinned) == 0:
		return guest.NoTab
	case info&infoPinned != 0:
		return guest.PageType(f.typ()) | guest.Pinned
	default:
		return guest.PageType(f.typ())
	}
}

// freeList hands out the frames from 1 on in random order, one step each: a Fisher-Yates shuffle whose array is
// written only where frames have moved, so that a large machine costs nothing before its memory is used. Frame 0 is
// never handed out, which lets a zero in the array mean "still in its place".
type freeList struct {
	order []uint32 // order[used:] are the free frames
	used  uint32
}

func newFreeList(frames uint32) freeList { return freeList{order: make([]uint32, frames), used: 1} }

func (l *freeList) at(i uint32) uint32 {
	if f := l.order[i]; f != 0 {
		return f
	}
	return i
}

// take fills frames with the numbers of free ones. There must be as many.
//
// All places are drawn before any frame is moved: reads that do not wait for each other take a fraction of the time,
// as nearly every one misses the cache.
func (l *freeList) take(rng *rand.Rand, frames []guest.MFN) (warm uint32) {
	left := uint32(len(l.order)) - l.used
	for k := range frames {
		i := l.used + uint32(k) + rng.Uint32N(left-uint32(k))
		frames[k] = guest.MFN(i)
		warm += l.order[i]
	}
	for k, place := range frames {
		i := uint32(place)
		frames[k] = guest.MFN(l.at(i))
		l.order[i] = l.at(l.used)
		l.used++
	}
	return warm
}

func (l *freeList) put(f uint32) {
	l.used--
	l.order[l.used] = f
}

func (l *freeList) left() uint64 { return uint64(len(l.order)) - uint64(l.used) }
