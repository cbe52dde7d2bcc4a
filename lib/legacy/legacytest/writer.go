// Package legacytest writes legacy images, for tests: part by part, or at random from a seed. Xen's tools have nothing that
// does; the layout is that of xc_domain_save.c and libxl_dom.c of Xen 4.5.
package legacytest

import (
	"encoding/binary"

	"xenferry/lib/guest"
	"xenferry/lib/legacy"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

var le = binary.LittleEndian

// Writer writes an image into memory, as a toolstack whose long has Width octets does. It writes what it is told, be it
// right or wrong.
type Writer struct {
	Width legacy.Width
	B     []byte
}

func (w *Writer) u32(v uint32) { w.B = le.AppendUint32(w.B, v) }
func (w *Writer) u64(v uint64) { w.B = le.AppendUint64(w.B, v) }

func (w *Writer) long(v uint64) {
	if w.Width == legacy.Width32 {
		w.u32(uint32(v))
	} else {
		w.u64(v)
	}
}

func (w *Writer) longs(vs []uint64) {
	for _, v := range vs {
		w.long(v)
	}
}

// XLHeader writes the header of xl with its optional data.
func (w *Writer) XLHeader(flags uint32, data []byte) {
	w.B = append(w.B, xlstream.XLMagic...)
	w.u32(0x01020304)
	w.u32(flags)
	w.u32(0)
	w.u32(uint32(len(data)))
	w.B = append(w.B, data...)
}

// XLConfig is the optional data of an xl header: a configuration.
func XLConfig(config string) []byte {
	return append(append(le.AppendUint32(nil, uint32(len(config)+1)), config...), 0)
}

// XendHeader writes the header of xend with its configuration.
func (w *Writer) XendHeader(config string) {
	w.B = append(w.B, "LinuxGuestRecord"...)
	w.B = binary.BigEndian.AppendUint32(w.B, uint32(len(config)))
	w.B = append(w.B, config...)
}

// Size writes p2m_size.
func (w *Writer) Size(pfns uint64) { w.long(pfns) }

// Block is a block of extended info.
type Block struct {
	ID   string
	Data []byte
}

// ExtInfo writes the extended info.
func (w *Writer) ExtInfo(blocks ...Block) {
	length := 0
	for _, b := range blocks {
		length += 8 + len(b.Data)
	}
	w.long(1<<64 - 1)
	w.u32(uint32(length))
	for _, b := range blocks {
		w.B = append(w.B, b.ID...)
		w.u32(uint32(len(b.Data)))
		w.B = append(w.B, b.Data...)
	}
}

// P2M writes the P2M frame list.
func (w *Writer) P2M(frames []uint64) { w.longs(frames) }

// Entry makes an entry of a page batch.
func Entry(p guest.PFN, t guest.PageType) uint64 { return uint64(t)<<28 | uint64(p) }

// Bare is an entry that names no PFN: type XTAB, PFN 0.
const Bare = 0xf0000000

// Batch writes a page batch. page fills in the contents of an entry.
func (w *Writer) Batch(entries []uint64, page func(entry uint64, p []byte)) {
	w.u32(uint32(len(entries)))
	w.longs(entries)
	for _, e := range entries {
		if e&0xf0000000 >= 0xd0000000 {
			continue
		}
		at := len(w.B)
		w.B = append(w.B, make([]byte, guest.PageSize)...)
		page(e, w.B[at:])
	}
}

// Chunk writes the id of a chunk.
func (w *Writer) Chunk(id legacy.ChunkID) { w.u32(uint32(id)) }

// Param writes a chunk that holds an HVM parameter.
func (w *Writer) Param(id legacy.ChunkID, value uint64) {
	w.Chunk(id)
	w.u32(0)
	w.u64(value)
}

// TSC writes TSC_INFO.
func (w *Writer) TSC(t guest.TSC) {
	w.Chunk(legacy.ChunkTSCInfo)
	w.u32(t.Mode)
	w.u64(t.NSec)
	w.u32(t.KHz)
	w.u32(t.Incarnation)
}

// VCPUInfo writes VCPU_INFO with as many words of the bitmap as maxID asks for.
func (w *Writer) VCPUInfo(maxID int32, bitmap ...uint64) {
	w.Chunk(legacy.ChunkVCPUInfo)
	w.u32(uint32(maxID))
	for _, word := range bitmap {
		w.u64(word)
	}
}

// Region is an entry of libxl's toolstack data.
type Region struct {
	Phys, Start, Size uint64
	Name              []byte // with its NUL; empty for none
}

// Toolstack writes TOOLSTACK with libxl's data: version 1 and regions. pad is what a 64-bit toolstack sends behind each.
func (w *Writer) Toolstack(regions []Region, pad [4]byte) {
	data := le.AppendUint32(le.AppendUint32(nil, 1), uint32(len(regions)))
	for _, r := range regions {
		for _, v := range [...]uint64{r.Phys, r.Start, r.Size} {
			data = le.AppendUint64(data, v)
		}
		data = append(le.AppendUint32(data, uint32(len(r.Name))), r.Name...)
		if w.Width == legacy.Width64 {
			data = append(data, pad[:]...)
		}
	}
	w.RawToolstack(data)
}

// RawToolstack writes TOOLSTACK with any data.
func (w *Writer) RawToolstack(data []byte) {
	w.Chunk(legacy.ChunkToolstack)
	w.Blob(data)
}

// Blob writes u32 size and data.
func (w *Writer) Blob(data []byte) {
	w.u32(uint32(len(data)))
	w.B = append(w.B, data...)
}

// Unmapped writes the beginning of a PV tail.
func (w *Writer) Unmapped(pfns []uint64) {
	w.u32(uint32(len(pfns)))
	w.longs(pfns)
}

// VCPU is a vCPU in a PV tail.
type VCPU struct {
	Context  []byte
	Extended []byte // 128 octets, or none
	XSave    []byte // with mask and size in front, or none
}

// VCPU writes a vCPU.
func (w *Writer) VCPU(v VCPU) {
	w.B = append(append(append(w.B, v.Context...), v.Extended...), v.XSave...)
}

// XSave is XSAVE state as an image has it.
func XSave(mask uint64, state []byte) []byte {
	return append(le.AppendUint64(le.AppendUint64(nil, mask), uint64(len(state))), state...)
}

// Octets writes octets as they are, such as a shared info page.
func (w *Writer) Octets(b []byte) { w.B = append(w.B, b...) }

// MagicPFNs writes the beginning of an HVM tail.
func (w *Writer) MagicPFNs(ioreq, bufioreq, store uint64) {
	for _, v := range [...]uint64{ioreq, bufioreq, store} {
		w.u64(v)
	}
}

// QEMU writes a QEMU record of libxl or Remus.
func (w *Writer) QEMU(signature string, state []byte) {
	w.B = append(w.B, signature...)
	w.Blob(state)
}

// HVMContext is an HVM context of n vCPUs that is framed as Xen frames it. fill fills in the entries' data.
func HVMContext(n int, fill func([]byte)) []byte {
	old := guest.Release{Major: 4, Minor: 5}
	entries := []xcstream.HVMEntry{{Code: xcstream.HVMHeader, Data: xcstream.HVMHeaderData{}.Append(nil)}}
	for _, code := range []xcstream.HVMCode{xcstream.HVMCPU, xcstream.HVMPIC, xcstream.HVMLAPIC, xcstream.HVMRTC, xcstream.HVMMTRR} {
		count := n
		switch code {
		case xcstream.HVMPIC:
			count = 2
		case xcstream.HVMRTC:
			count = 1
		}
		for i := range count {
			data := make([]byte, xcstream.HVMLength(code, old))
			fill(data)
			entries = append(entries, xcstream.HVMEntry{Code: code, Instance: uint16(i), Data: data})
		}
	}
	return xcstream.AppendHVMContext(nil, append(entries, xcstream.HVMEntry{Code: xcstream.HVMEnd}))
}
