package x86

import (
	"encoding/binary"
	"math"

	"xenferry/lib/guest"
)

var le = binary.LittleEndian

// pvLayout is where a PV guest of one word size keeps what saving and restoring must read or change: offsets in octets
// into Xen's public structures (xen/include/public/xen.h and arch-x86/xen.h, seen by a guest of that size).
type pvLayout struct {
	width  int    // octets of a word
	levels int    // of page table
	fpp    uint64 // P2M entries in a page

	// vcpu_guest_context
	contextSize           int
	edx                   int
	gdtFrames, gdtEntries int
	cr1, cr3              int // cr1 is 0 where the guest has only one root

	// shared_info, of which vcpu_info[32] is the first 2048 octets
	pendingSel                     int // in each vcpu_info
	evtchnPending, evtchnMask      int
	evtchnSize                     int // of each of the two
	arch, archSize                 int
	frameListList, p2mCR3, p2mAddr int
	generation                     int

	// start_info
	nrPages, sharedInfo, startFlags int
	storeMFN, storeEvtchn           int
	consoleMFN, consoleEvtchn       int
}

var pv64 = pvLayout{
	width: 8, levels: 4, fpp: 512,
	contextSize: 5168, edx: 616, gdtFrames: 4832, gdtEntries: 4960, cr1: 4992, cr3: 5008,
	pendingSel: 8, evtchnPending: 2048, evtchnMask: 2560, evtchnSize: 512,
	arch: 3088, archSize: 48, frameListList: 3096, p2mCR3: 3112, p2mAddr: 3120, generation: 3128,
	nrPages: 32, sharedInfo: 40, startFlags: 48, storeMFN: 56, storeEvtchn: 64, consoleMFN: 72, consoleEvtchn: 80,
}

var pv32 = pvLayout{
	width: 4, levels: 3, fpp: 1024,
	contextSize: 2800, edx: 524, gdtFrames: 2640, gdtEntries: 2704, cr3: 2728,
	pendingSel: 4, evtchnPending: 2048, evtchnMask: 2176, evtchnSize: 128,
	arch: 2316, archSize: 28, frameListList: 2320, p2mCR3: 2328, p2mAddr: 2332, generation: 2336,
	nrPages: 32, sharedInfo: 36, startFlags: 40, storeMFN: 44, storeEvtchn: 48, consoleMFN: 52, consoleEvtchn: 56,
}

const (
	contextFlags = 512  // vcpu_guest_context.flags, the same for both sizes
	vgcfOnline   = 0x20 // VGCF_online
	vcpuInfos    = 32   // vcpu_info structures in shared_info
	vcpuInfoSize = 64

	maxGDTEntries = 7168 // FIRST_RESERVED_GDT_ENTRY
	gdtPerFrame   = guest.PageSize / 8
)

// word reads the guest's word at offset off of b.
func (l *pvLayout) word(b []byte, off int) uint64 {
	if l.width == 4 {
		return uint64(le.Uint32(b[off:]))
	}
	return le.Uint64(b[off:])
}

// putWord writes v, which must fit, to the guest's word at offset off of b.
func (l *pvLayout) putWord(b []byte, off int, v uint64) {
	if l.width == 4 {
		le.PutUint32(b[off:], uint32(v))
		return
	}
	le.PutUint64(b[off:], v)
}

// mfn reads a frame number: all ones of the guest's width is no frame.
func (l *pvLayout) mfn(b []byte, off int) guest.MFN { return l.toMFN(l.word(b, off)) }

func (l *pvLayout) toMFN(v uint64) guest.MFN {
	if l.width == 4 && v == math.MaxUint32 {
		return guest.InvalidMFN
	}
	return guest.MFN(v)
}

// fits reports whether a frame number can be held by a word of the guest.
func (l *pvLayout) fits(frame uint64) bool { return l.width == 8 || frame < math.MaxUint32 }

// cr3Frame takes the frame number out of a cr3. A 32-bit guest has it rotated, so that 32 bits of frame fit.
func (l *pvLayout) cr3Frame(cr3 uint64) uint64 {
	if l.width == 4 {
		return uint64(uint32(cr3)>>12 | uint32(cr3)<<20)
	}
	return cr3 >> guest.PageShift
}

// cr3 makes a cr3 of a frame number, which must fit.
func (l *pvLayout) makeCR3(frame uint64) uint64 {
	if l.width == 4 {
		return uint64(uint32(frame)<<12 | uint32(frame)>>20)
	}
	return frame << guest.PageShift
}

// p2mFrames is how many frames hold the P2M of a guest whose last PFN is last.
func (l *pvLayout) p2mFrames(last guest.PFN) uint64 { return uint64(last)/l.fpp + 1 }
