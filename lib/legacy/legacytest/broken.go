package legacytest

import (
	"bytes"
	"fmt"
	"math"

	"xenferry/lib/guest"
	"xenferry/lib/legacy"
	"xenferry/lib/xcstream"
)

// Odd makes an image that no writer makes and that can be converted all the same: parts in any order and any number of
// times, entries and sizes at their limits, octets behind the end. What becomes of some of it no restore takes.
func Odd(seed uint64) Image {
	g := newGenerator(seed)
	g.img.What = fmt.Sprintf("odd image of seed %d", seed)
	g.oddStart()
	for range g.IntN(12) {
		g.oddChunk()
	}
	g.oddTail()
	g.img.Data = append(g.B, g.octets(g.IntN(2)*g.IntN(40))...)
	return g.img
}

// oddStart writes extended info with blocks again, without use, or in another order.
func (g *generator) oddStart() {
	if !g.pv {
		g.Size(g.Uint64N(maxPFNs + 1))
		return
	}
	if g.IntN(8) == 0 {
		g.pfns = 1 << 20
	}
	g.Size(g.pfns)
	size := xcstream.VCPUContextSize32
	if g.width == 8 {
		size = xcstream.VCPUContextSize64
	}
	blocks := []Block{{"vcpu", make([]byte, size)}}
	for range g.IntN(3) {
		switch g.IntN(3) {
		case 0:
			blocks = append(blocks, Block{"extv", g.octets(g.IntN(9))})
			g.extv = true
		case 1:
			g.xcnt = g.IntN(3) * (16 + g.IntN(100))
			blocks = append(blocks, Block{"xcnt", append(le.AppendUint32(nil, uint32(g.xcnt)), g.octets(g.IntN(9))...)})
		case 2:
			blocks = append(blocks, blocks[0])
		}
	}
	g.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
	for _, b := range blocks { // the last counts
		if b.ID == "xcnt" {
			g.xcnt = int(le.Uint32(b.Data))
		}
	}
	g.ExtInfo(blocks...)
	per := uint64(guest.PageSize / g.width)
	frames := make([]uint64, (g.pfns+per-1)/per)
	for i := range frames {
		frames[i] = g.Uint64()
	}
	g.P2M(frames)
}

const maxPFNs = 0x0fffffff

// oddChunk writes any chunk that may be converted.
func (g *generator) oddChunk() {
	switch g.IntN(9) {
	case 0, 1:
		g.oddBatch()
	case 2:
		g.Chunk(legacy.ChunkLastCheckpoint)
	case 3:
		if g.pv || len(g.B) > 8 { // as an HVM image's first chunk it would look like a PV image
			g.Chunk(legacy.ChunkEnableVerify)
		}
	case 4:
		g.oddVCPUInfo()
	case 5:
		g.TSC(guest.TSC{Mode: g.Uint32(), NSec: g.Uint64(), KHz: g.Uint32(), Incarnation: g.Uint32()})
	case 6, 7:
		if !g.pv {
			g.Param(hvmChunks[g.IntN(len(hvmChunks))], g.Uint64())
		}
	case 8:
		g.oddToolstack()
	}
}

// oddBatch writes entries of every type, with PFNs at random, and nothing but entries without a PFN.
func (g *generator) oddBatch() {
	count := 1 + g.IntN(20)
	if g.IntN(20) == 0 {
		count = 1024
	}
	bare := g.IntN(6) == 0
	seen := map[uint64]bool{}
	var entries []uint64
	for len(entries) < count {
		e := uint64(g.Uint32())
		if count > 100 {
			e |= 0xd0000000 // without contents, or images grow
		}
		if bare || g.IntN(5) == 0 {
			e = Bare
		} else if g.Width == legacy.Width64 && g.IntN(4) == 0 {
			e |= g.Uint64() << 32
		}
		if e == Bare || !seen[e] {
			entries = append(entries, e)
		}
		seen[e] = true
	}
	g.Batch(entries, func(_ uint64, p []byte) { g.page(p) })
}

// oddVCPUInfo adds some vCPUs to those that are there: bits above max_id count, and a negative one has no words.
func (g *generator) oddVCPUInfo() {
	maxID := int32(g.IntN(200)) - 70
	if g.IntN(30) == 0 {
		maxID = 4095
	}
	var bitmap []uint64
	if maxID >= 0 {
		bitmap = make([]uint64, maxID/64+1)
	}
	for range g.IntN(4) {
		if len(bitmap) > 0 {
			word, bit := g.IntN(len(bitmap)), g.IntN(64)
			if bitmap[word]>>bit&1 == 0 {
				bitmap[word] |= 1 << bit
			}
		}
	}
	for i, word := range bitmap {
		for bit := range 64 {
			if word>>bit&1 != 0 {
				g.vcpus = append(g.vcpus, uint32(i*64+bit))
			}
		}
	}
	g.VCPUInfo(maxID, bitmap...)
}

func (g *generator) oddToolstack() {
	if g.IntN(6) == 0 {
		g.RawToolstack(nil)
		return
	}
	if g.img.Format == legacy.LibXC && g.coin() {
		g.RawToolstack(g.octets(g.IntN(300))) // nobody looks at it
		return
	}
	var regions []Region
	for range g.IntN(4) {
		regions = append(regions, Region{g.Uint64(), g.Uint64N(2), g.Uint64(), [][]byte{{0}, []byte("a\x00b\x00\x00"), []byte("é.ram\x00")}[g.IntN(3)]})
	}
	g.Toolstack(regions, [4]byte(g.octets(4)))
	if n := len(regions); n > 0 {
		g.img.Xenstore = g.img.Format == legacy.LibXL
	}
}

func (g *generator) oddTail() {
	if g.pv {
		g.tail()
		return
	}
	if len(g.B) <= 8 {
		g.VCPUInfo(0, 1) // no image begins with END
	}
	g.Chunk(legacy.ChunkEnd)
	g.MagicPFNs(g.Uint64(), g.Uint64(), g.Uint64())
	g.Blob(g.octets(g.IntN(50)))
	if !g.img.skipsQEMU() {
		g.QEMU(legacy.QEMULibxl, g.octets(g.IntN(100)))
	}
}

// Broken makes an image with one thing wrong that ends its conversion.
func Broken(seed uint64) Image {
	img := Genuine(seed)
	g := newGenerator(seed ^ math.MaxUint64)
	g.pv, g.Width, g.img = img.Layout.Domain == xcstream.DomainPV, img.Layout.Width, img
	long := int(img.Layout.Width)
	what := ""
	data := bytes.Clone(img.Data)
	switch kind := g.IntN(8); {
	case kind < 4:
		at := g.IntN(len(data))
		what, data = fmt.Sprintf("cut off at %#x", at), data[:at]
	case kind < 6:
		what, data = g.badChunk()
	case g.pv:
		what = g.badStart(data, long)
	default:
		what, data = g.badQEMU(data)
	}
	img.What = fmt.Sprintf("image of seed %d: %s", seed, what)
	img.Data = data
	return img
}

// badStart spoils the extended info.
func (g *generator) badStart(data []byte, long int) string {
	block := 2*long + 4
	switch g.IntN(6) {
	case 0:
		data[long] = 0
		return "another marker"
	case 1:
		copy(data[block:], "what")
		return "unknown block"
	case 2:
		le.PutUint32(data[block+4:], 0x1000)
		return "vCPU context of no guest's size"
	case 3:
		le.PutUint32(data[2*long:], le.Uint32(data[2*long:])-1)
		return "blocks longer than they should be"
	case 4:
		le.PutUint32(data[2*long:], 0)
		return "no vCPU context"
	}
	clear(data[:long])
	return "p2m_size 0"
}

// badChunk makes an image that ends in a chunk which cannot be converted.
func (g *generator) badChunk() (string, []byte) {
	w := &generator{Rand: g.Rand, Writer: Writer{Width: g.Width}, pv: g.pv, img: g.img, width: 8, pfns: 700}
	w.start()
	w.oddBatch()
	if g.pv && g.IntN(4) == 0 {
		w.Param(hvmChunks[g.IntN(len(hvmChunks))], 5)
		w.oddBatch()
		w.vcpuInfo()
		w.tail()
		return "HVM parameter of a PV guest", w.B
	}
	what := ""
	switch g.IntN(9) {
	case 0:
		id := legacy.ChunkID(-22 - g.Int32N(1000))
		w.Chunk(id)
		what = id.String()
	case 1:
		w.Chunk(legacy.ChunkTmem)
		what = "tmem"
	case 2:
		w.Chunk(legacy.ChunkTmemExtra)
		what = "tmem extra"
	case 3:
		w.Chunk(legacy.ChunkEnableCompression)
		what = "compression"
	case 4:
		w.Chunk(legacy.ChunkCompressedData)
		w.u32(50)
		w.Octets(make([]byte, 49+g.IntN(2)))
		what = "compressed data, whole or not"
	case 5:
		w.u32(1025)
		what = "a batch too large"
	case 6:
		w.Batch([]uint64{7, 0x10000008, 7}, func(_ uint64, p []byte) {})
		what = "an entry twice"
	case 7:
		w.VCPUInfo(4096, make([]uint64, 65)...)
		what = "vCPU out of range"
	case 8:
		what = w.badToolstack()
	}
	w.Octets(make([]byte, g.IntN(60)))
	return what, w.B
}

// badToolstack writes toolstack data that a libxl stream cannot be made of; for a libxc stream it does not matter, and
// what follows is then no chunk.
func (w *generator) badToolstack() string {
	good := Writer{Width: w.Width}
	good.Toolstack([]Region{{1, 2, 3, []byte("name\x00")}}, [4]byte{})
	data := good.B[8:]
	what := ""
	switch w.IntN(5) {
	case 0:
		what, data = "short toolstack data", data[:1+w.IntN(7)]
	case 1:
		what = "toolstack data of version 2"
		data[0] = 2
	case 2:
		what, data = "toolstack data cut off", data[:9+w.IntN(len(data)-9)]
	case 3:
		what = "a name without NUL"
		data[8+28+4] = 'x'
	case 4:
		what = "a name that is not UTF-8"
		data[8+28] = 0xe9
	}
	w.RawToolstack(data)
	w.Chunk(-99)
	return what
}

// badQEMU spoils the signature of a QEMU record.
func (g *generator) badQEMU(data []byte) (string, []byte) {
	if at := bytes.LastIndex(data, []byte(legacy.QEMULibxl)); at >= 0 {
		copy(data[at:], "What")
	}
	return "QEMU record of unknown signature", data
}
