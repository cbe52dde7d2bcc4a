package guestos

import (
	"fmt"
	"slices"

	"xenferry/lib/guest"
)

// startLayout is where start_info has what (xen/include/public/xen.h).
type startLayout struct {
	nrPages, sharedInfo, flags, storeMFN, storeEvtchn, consoleMFN, consoleEvtchn int
	ptBase, nrPTFrames, mfnList, cmdLine, firstP2M, nrP2M, size                  int
}

var start64 = startLayout{nrPages: 32, sharedInfo: 40, flags: 48, storeMFN: 56, storeEvtchn: 64, consoleMFN: 72,
	consoleEvtchn: 80, ptBase: 88, nrPTFrames: 96, mfnList: 104, cmdLine: 128, firstP2M: 1152, nrP2M: 1160, size: 1168}

var start32 = startLayout{nrPages: 32, sharedInfo: 36, flags: 40, storeMFN: 44, storeEvtchn: 48, consoleMFN: 52,
	consoleEvtchn: 56, ptBase: 60, nrPTFrames: 64, mfnList: 68, cmdLine: 80, firstP2M: 1104, nrP2M: 1108, size: 1112}

func startOf(k guest.Kind) *startLayout {
	if k == guest.PV32 {
		return &start32
	}
	return &start64
}

// startMagic opens start_info.
const startMagic = "xen-3.0-x86_64"

// writeStartInfo fills start_info as Xen's domain builder does for a domain that boots.
func (k *Kernel) writeStartInfo(page []byte) {
	s, w := startOf(k.Kind), k.Kind.Width()
	clear(page)
	magic := startMagic
	if k.Kind == guest.PV32 {
		magic = "xen-3.0-x86_32p"
	}
	copy(page, magic)
	info := k.hv.Info()
	putWord(page[s.nrPages:], w, k.span())
	putWord(page[s.sharedInfo:], w, uint64(k.sharedMFN)<<guest.PageShift)
	putWord(page[s.storeMFN:], w, uint64(k.frame(k.Store)))
	le.PutUint32(page[s.storeEvtchn:], info.StoreEvtchn)
	putWord(page[s.consoleMFN:], w, uint64(k.frame(k.Console)))
	le.PutUint32(page[s.consoleEvtchn:], info.ConsoleEvtchn)
	root, _ := k.space.directAddr(k.Root)
	putWord(page[s.ptBase:], w, root)
	putWord(page[s.nrPTFrames:], w, uint64(k.space.levels))
	putWord(page[s.mfnList:], w, k.space.p2m)
	copy(page[s.cmdLine:], fmt.Sprintf("console=hvc0 seed=%#x", k.Seed))
	putWord(page[s.firstP2M:], w, 0)
	putWord(page[s.nrP2M:], w, k.P2MLeaves)
	fillRandom(page[2048:], mix(k.Seed, 0x7374617274)) // the rest of the page is the guest's
}

// sharedLayout is where shared_info has what.
type sharedLayout struct {
	pendingSel, cr2, pending, mask, ports int // pendingSel and cr2 in each vcpu_info; ports is the octets of the bitmaps
	arch, frameListList, nmiReason        int
	p2mCR3, p2mVAddr, generation          int
	wallClock, wallClockEnd, wallClockHi  int // the wall clock is Xen's, its high half too
}

var shared64 = sharedLayout{pendingSel: 8, cr2: 16, pending: 2048, mask: 2560, ports: 512, arch: 3088, frameListList: 3096,
	nmiReason: 3104, p2mCR3: 3112, p2mVAddr: 3120, generation: 3128, wallClock: 3072, wallClockEnd: 3088, wallClockHi: 3084}

var shared32 = sharedLayout{pendingSel: 4, cr2: 8, pending: 2048, mask: 2176, ports: 128, arch: 2316, frameListList: 2320,
	nmiReason: 2324, p2mCR3: 2328, p2mVAddr: 2332, generation: 2336, wallClock: 2304, wallClockEnd: 2316, wallClockHi: 2340}

func sharedOf(k guest.Kind) *sharedLayout {
	if k == guest.PV32 {
		return &shared32
	}
	return &shared64
}

// writeSharedInfo fills shared_info with what a kernel that has booted keeps there.
func (k *Kernel) writeSharedInfo() {
	page, m := k.hv.SharedInfo()
	s, w := sharedOf(k.Kind), k.Kind.Width()
	for n := range k.Online {
		v := k.vcpuInfo(n)
		copy(page[64*n:], v[:])
	}
	putWord(page[s.arch:], w, k.span())
	putWord(page[s.nmiReason:], w, 0)
	k.showP2M(page)
	k.bindPorts(page)
	k.hv.Wrote(m)
}

// vcpuInfo is a vCPU's vcpu_info: no event pending; a page-fault address; and the vCPU's clock.
func (k *Kernel) vcpuInfo(n uint32) (v [64]byte) {
	s, w := sharedOf(k.Kind), k.Kind.Width()
	putWord(v[s.cr2:], w, k.space.direct+mix(k.Seed, uint64(n)|4<<32)&0xFFFFFF)
	le.PutUint32(v[32:], 2)                                 // version
	le.PutUint64(v[40:], mix(k.Seed, uint64(n)|5<<32)>>16)  // tsc_timestamp
	le.PutUint64(v[48:], 1_000_000_000+uint64(n)*1_000_000) // system_time
	le.PutUint32(v[56:], 0xD5555555)                        // tsc_to_system_mul
	v[60] = 0xFF                                            // tsc_shift
	return v
}

// showP2M tells the toolstack where the P2M is.
func (k *Kernel) showP2M(page []byte) {
	s, w := sharedOf(k.Kind), k.Kind.Width()
	if k.P2M == Tree {
		putWord(page[s.frameListList:], w, uint64(k.frame(k.P2MTop)))
		return
	}
	putWord(page[s.p2mCR3:], w, encodeCR3(k.Kind, k.frame(k.Root)))
	putWord(page[s.p2mVAddr:], w, k.space.p2m)
	putWord(page[s.generation:], w, k.Generation)
}

// bindPorts lets events of xenstore and the console through, and no others.
func (k *Kernel) bindPorts(page []byte) {
	s := sharedOf(k.Kind)
	info := k.hv.Info()
	mask := page[s.mask : s.mask+s.ports]
	for i := range mask {
		mask[i] = 0xFF
	}
	for _, port := range []uint32{info.StoreEvtchn, info.ConsoleEvtchn} {
		if port != 0 && int(port/8) < len(mask) {
			mask[port/8] &^= 1 << (port % 8)
		}
	}
}

// buildTree links the P2M's pages into the two levels of lists above them.
func (k *Kernel) buildTree(lists, leaves []guest.PFN) {
	w := k.Kind.Width()
	top := k.page(k.P2MTop)
	clear(top)
	for i, p := range lists {
		list := k.page(p)
		clear(list)
		for j, leaf := range leaves[:min(len(leaves), guest.PageSize/w)] {
			putWord(list[j*w:], w, uint64(k.frame(leaf)))
		}
		leaves = leaves[min(len(leaves), guest.PageSize/w):]
		k.hv.Wrote(k.frame(p))
		putWord(top[i*w:], w, uint64(k.frame(p)))
	}
	k.hv.Wrote(k.frame(k.P2MTop))
}

// leafPages are the pages that the P2M is in, in order.
func (k *Kernel) leafPages() []guest.PFN {
	ps := make([]guest.PFN, len(k.p2m.frames))
	for i, m := range k.p2m.frames {
		ps[i] = k.hv.M2P(m)
	}
	return ps
}

// listPages are the pages of the tree's middle level, in the order of the tree, which is that of their numbers.
func (k *Kernel) listPages() (ps []guest.PFN) {
	for i := range k.pages() {
		if p := k.pfn(i); k.recordAt(i).role() == roleP2MList && p != k.P2MTop {
			ps = append(ps, p)
		}
	}
	return ps
}

// gdtIndex is the place of page p among those with descriptors.
func (l *Layout) gdtIndex(p guest.PFN) (int, bool) {
	i := slices.Index(l.GDT, p)
	return i, i >= 0
}

// writeGDT fills a page of a global descriptor table: flat segments of the rings that a PV guest may use, and one that
// is this page's own.
func writeGDT(page []byte, k guest.Kind, n int) {
	clear(page)
	ds := []uint64{0, 0, 0x00CFFB000000FFFF, 0x00AFFB000000FFFF, 0x00CFF3000000FFFF}
	if k == guest.PV32 {
		ds = []uint64{0, 0, 0x00CFBB000000FFFF, 0x00CFB3000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF}
	}
	ds = append(ds, 0x00CFF3000000FFFF|uint64(n)<<16)
	for i, d := range ds {
		le.PutUint64(page[8*i:], d)
	}
}
