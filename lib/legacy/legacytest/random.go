package legacytest

import (
	"fmt"
	"math/rand/v2"

	"xenferry/lib/guest"
	"xenferry/lib/legacy"
	"xenferry/lib/xcstream"
)

// Image is an image with what it takes to convert it.
type Image struct {
	Data   []byte
	Layout legacy.Layout
	Format legacy.Format
	XL     bool // xl header in front
	NoQEMU bool // to be converted without the QEMU record
	What   string
	// Xenstore: the libxl stream has emulator data for xenstore.
	Xenstore bool
}

// generator makes the parts of a random image.
type generator struct {
	*rand.Rand
	Writer
	img   Image
	pv    bool
	width int // of the guest's words
	pfns  uint64
	vcpus []uint32
	extv  bool
	xcnt  int
}

// New begins a random image of a random layout.
func newGenerator(seed uint64) *generator {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 4)), pfns: 1}
	g.pv = g.coin()
	g.img.Layout = legacy.Layout{Width: legacy.Width32, Domain: xcstream.DomainHVM}
	if g.coin() {
		g.img.Layout.Width = legacy.Width64
	}
	if g.pv {
		g.img.Layout.Domain = xcstream.DomainPV
	}
	g.Width = g.img.Layout.Width
	g.img.Format = legacy.LibXC
	if g.coin() {
		g.img.Format = legacy.LibXL
	}
	g.img.NoQEMU = g.IntN(4) == 0
	g.width = 4 + 4*g.IntN(2)
	g.pfns = 1 + g.Uint64N(3000)
	return g
}

func (g *generator) coin() bool { return g.IntN(2) == 0 }

func (g *generator) fill(b []byte) {
	for len(b) >= 8 {
		le.PutUint64(b, g.Uint64())
		b = b[8:]
	}
	for i := range b {
		b[i] = byte(g.Uint32())
	}
}

func (g *generator) octets(n int) []byte {
	b := make([]byte, n)
	g.fill(b)
	return b
}

// Genuine makes an image that Xen 4.5's own writer could have made: parts in its order, as it sends them. Two images of a
// seed are equal.
func Genuine(seed uint64) Image {
	g := newGenerator(seed)
	g.img.What = fmt.Sprintf("genuine image of seed %d", seed)
	g.start()
	g.memory()
	g.vcpuInfo()
	if !g.pv {
		g.params()
	}
	g.toolstack()
	g.Chunk(legacy.ChunkLastCheckpoint)
	g.tail()
	if !g.pv && !g.img.skipsQEMU() {
		g.QEMU(legacy.QEMULibxl, g.octets(g.IntN(5000)))
	}
	g.img.Data = g.B
	return g.img
}

// skipsQEMU reports whether the QEMU record is not looked at.
func (i *Image) skipsQEMU() bool { return i.NoQEMU && i.Format == legacy.LibXC }

// start writes what is before the chunks.
func (g *generator) start() {
	g.Size(g.pfns)
	if !g.pv {
		return
	}
	size := xcstream.VCPUContextSize32
	if g.width == 8 {
		size = xcstream.VCPUContextSize64
	}
	blocks := []Block{{"vcpu", g.octets(size)}}
	if g.extv = g.coin(); g.extv {
		blocks = append(blocks, Block{ID: "extv"})
	}
	if g.coin() {
		g.xcnt = 16 + 576 + 8*g.IntN(200)
		blocks = append(blocks, Block{"xcnt", le.AppendUint32(nil, uint32(g.xcnt))})
	}
	g.ExtInfo(blocks...)
	per := uint64(guest.PageSize / g.width)
	frames := make([]uint64, (g.pfns+per-1)/per)
	for i := range frames {
		frames[i] = g.Uint64N(g.pfns)
	}
	g.P2M(frames)
}

// memory writes the page batches, and TSC_INFO: of a live save before the final pass, else before all.
func (g *generator) memory() {
	live := g.coin()
	tsc := guest.TSC{Mode: g.Uint32N(4), NSec: g.Uint64(), KHz: g.Uint32(), Incarnation: g.Uint32N(9)}
	if !live {
		g.TSC(tsc)
	}
	g.pass(g.pfns, 1)
	if live {
		for range g.IntN(3) {
			g.pass(g.pfns, 4)
		}
		g.TSC(tsc)
		g.pass(g.pfns, 8)
	}
	if g.IntN(8) == 0 { // xl migrate --debug
		g.Chunk(legacy.ChunkEnableVerify)
		g.pass(g.pfns, 1)
	}
}

// pass writes one pass over memory that has one page in few, in short batches.
func (g *generator) pass(pfns uint64, few int) {
	most := 1 + g.IntN(40)
	var entries []uint64
	data := 0
	flush := func() {
		if len(entries) > 0 && entries[len(entries)-1] != Bare {
			g.Batch(entries, func(_ uint64, p []byte) { g.page(p) })
		}
		entries = entries[:0]
	}
	for p := g.Uint64N(8); p < pfns; p += 1 + g.Uint64N(uint64(few*60)) {
		if len(entries) == most {
			flush()
		}
		t := g.pageType()
		if g.IntN(10) == 0 && len(entries) > 0 {
			entries = append(entries, Bare)
		}
		if t.HasData() {
			data++
		}
		entries = append(entries, Entry(guest.PFN(p), t))
	}
	if few == 1 && data == 0 { // without any memory there is no guest
		entries = append(entries[:0], Entry(0, guest.NoTab))
	}
	flush()
}

// page fills in a page: most are of one value, so that images are quickly made.
func (g *generator) page(p []byte) {
	if g.IntN(8) == 0 {
		g.fill(p)
		return
	}
	le.PutUint64(p, g.Uint64())
	p[len(p)-1] = byte(g.Uint32())
}

func (g *generator) pageType() guest.PageType {
	if !g.pv {
		return [...]guest.PageType{guest.NoTab, guest.NoTab, guest.NoTab, guest.XAlloc, guest.XTab}[g.IntN(5)]
	}
	return [...]guest.PageType{guest.NoTab, guest.NoTab, guest.NoTab, guest.L1Tab, guest.L2Tab, guest.L3Tab, guest.L4Tab,
		guest.L1Tab | guest.Pinned, guest.L4Tab | guest.Pinned, guest.Broken, guest.XAlloc, guest.XTab}[g.IntN(12)]
}

// vcpuInfo writes VCPU_INFO. vCPU 0 is always online.
func (g *generator) vcpuInfo() {
	highest := g.IntN(8)
	if g.IntN(10) == 0 {
		highest = g.IntN(200)
	}
	bitmap := make([]uint64, highest/64+1)
	for i := range highest + 1 {
		if i == 0 || g.coin() && len(g.vcpus) < 6 {
			bitmap[i/64] |= 1 << (i % 64)
			g.vcpus = append(g.vcpus, uint32(i))
		}
	}
	g.VCPUInfo(int32(highest), bitmap...)
}

// hvmChunks are in the order of the writer.
var hvmChunks = []legacy.ChunkID{legacy.ChunkGenerationIDAddr, legacy.ChunkIdentPT, legacy.ChunkPagingRingPFN,
	legacy.ChunkMonitorRingPFN, legacy.ChunkSharingRingPFN, legacy.ChunkVM86TSS, legacy.ChunkConsolePFN,
	legacy.ChunkACPIIOPorts, legacy.ChunkViridian, legacy.ChunkIOReqServerPFN, legacy.ChunkNrIOReqServerPages}

func (g *generator) params() {
	for _, id := range hvmChunks {
		if g.coin() {
			g.Param(id, 1+g.Uint64N(1<<20))
		}
	}
}

// toolstack writes libxl's data, which only an HVM guest's has anything in.
func (g *generator) toolstack() {
	if g.IntN(5) == 0 {
		return // xend
	}
	var regions []Region
	if !g.pv {
		for i := range g.IntN(3) {
			regions = append(regions, Region{g.Uint64() >> g.IntN(64), g.Uint64() >> g.IntN(64), g.Uint64() >> g.IntN(64), fmt.Appendf(nil, "vga.vram%d\x00", i)})
		}
	}
	g.img.Xenstore = g.img.Format == legacy.LibXL && (g.img.Xenstore || len(regions) > 0)
	g.Toolstack(regions, [4]byte(g.octets(4)))
}

// tail writes END and what is behind, but for the QEMU record.
func (g *generator) tail() {
	g.Chunk(legacy.ChunkEnd)
	if !g.pv {
		g.MagicPFNs(g.Uint64N(g.pfns), g.Uint64N(g.pfns), g.Uint64N(g.pfns))
		g.Blob(HVMContext(len(g.vcpus), g.fill))
		return
	}
	unmapped := make([]uint64, g.IntN(20)*g.IntN(2))
	for i := range unmapped {
		unmapped[i] = g.Uint64N(g.pfns)
	}
	g.Unmapped(unmapped)
	for _, id := range g.vcpus {
		size := xcstream.VCPUContextSize32
		if g.width == 8 {
			size = xcstream.VCPUContextSize64
		}
		v := VCPU{Context: g.octets(size)}
		if g.extv {
			v.Extended = g.octets(xcstream.MaxVCPUExtended)
			le.PutUint32(v.Extended, id)
		}
		if g.xcnt != 0 {
			v.XSave = XSave(g.Uint64(), g.octets(g.xcnt-16))
		}
		g.VCPU(v)
	}
	g.Octets(g.octets(guest.PageSize))
}
