package legacy

import (
	"fmt"
	"strings"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// Item is a part of an image. Its String is a line that describes it.
type Item interface {
	// Name is what errors and reports call it.
	Name() string
	String() string
}

// XendHeader is what xend put in front of an image: "LinuxGuestRecord", a big-endian u32, and as many octets of the
// domain's configuration, which are the payload.
type XendHeader struct{ Config uint32 }

// XLHeader is what xl of Xen 4.1 to 4.5 put in front: see xlstream.XLHeader. The optional data is the payload. Only the
// magic is looked at.
type XLHeader struct{ ByteOrder, Flags, Optional, Length uint32 }

// Size is p2m_size, a long: how many PFNs the guest has. For HVM nothing depends on it.
type Size struct{ PFNs uint64 }

// ExtInfo begins a PV guest's extended info: a long of all ones, then u32 octets of blocks.
type ExtInfo struct{ Length uint32 }

// The blocks of extended info.
const (
	blockVCPU = "vcpu" // a vCPU context of the guest's: its size tells the guest's width
	blockExtV = "extv" // each vCPU comes with extended state
	blockXCnt = "xcnt" // u32, how many octets of XSAVE state each vCPU comes with
)

// Block is a block of extended info: 4 octets of id, u32 size, contents.
type Block struct {
	ID    string
	Size  uint32
	Width int    // vcpu: octets of a word of the guest
	XSave uint32 // xcnt
}

// P2MList is the P2M frame list of a PV guest: the PFNs of the pages that hold its P2M, a long each. They are the
// payload.
type P2MList struct {
	PFNs  uint64 // that the P2M describes
	Width int    // octets of a word of the guest
	Count uint64
}

// Batch is a page batch: a positive i32 count, as many longs, each a PFN in bits 0-27 and its type in bits 28-31, and the
// contents of the pages that have any, which are the payload. The entries are as PAGE_DATA has them.
type Batch struct {
	Entries []xcstream.PageEntry // good until the next item
	Pages   int                  // with contents
	Bare    int                  // entries that stood for a run of unmapped PFNs and no PFN of their own; they are not in Entries
	Twice   bool                 // an entry comes twice, which is damage
}

// Marker is a chunk that is only its id, or of which nothing but its id is known.
type Marker struct{ ID ChunkID }

// VCPUInfo is a VCPU_INFO chunk: i32 max_id, and a bitmap of u64 words of the vCPUs that are in the tail.
type VCPUInfo struct {
	MaxID  int32
	Online []uint32
}

// Param is a chunk that holds an HVM parameter: u32 padding, u64.
type Param struct {
	ID    ChunkID
	Value uint64
}

// Index is the parameter's HVM_PARAM_*.
func (p *Param) Index() uint64 { return chunkParams[p.ID] }

// TSC is a TSC_INFO chunk: u32 mode, u64 nsec, u32 khz, u32 incarnation.
type TSC guest.TSC

// Toolstack is a TOOLSTACK chunk: u32 size, and libxl's data as the payload. See ParseToolstack.
type Toolstack struct {
	Size uint32
	Text []byte // what ParseToolstack made of it, once that is known
}

// Compressed is a COMPRESSED_DATA chunk: pages of a Remus checkpoint as differences to what the sender had sent. Their
// length is a long by the writer; xc's converter takes a u32, and so does this. The data is the payload.
type Compressed struct{ Size uint32 }

// Unmapped begins a PV tail: u32 count, and as many longs as the payload: PFNs that came and are no more.
type Unmapped struct{ Count uint32 }

// VCPUState is a part of a PV vCPU's state, by the type of the record that it becomes: BASIC, EXTENDED (128 octets), XSAVE
// (u64 mask, u64 size, and the state). The state is the payload.
type VCPUState struct {
	ID   uint32
	Type xcstream.Type
	Mask uint64 // XSAVE
	Size uint64
}

// SharedInfo is the guest's shared info page, the payload.
type SharedInfo struct{}

// MagicPFNs begin an HVM tail: u64 each.
type MagicPFNs struct{ IOReq, BufIOReq, Store uint64 }

// HVMContext is u32 size, and the blob as the payload.
type HVMContext struct{ Size uint32 }

// The signatures of QEMU records.
const (
	QEMULibxl = "DeviceModelRecord0002" // libxl 4.1 to 4.5: u32 size and data
	QEMURemus = "RemusDeviceModelState" // Remus of xend: likewise
	QEMUXend  = "QemuDeviceModelRecord" // xend, libxl 4.0: data up to the end of the input
)

// QEMU is the record of an HVM guest's emulator: the signature, and as that says a u32 size; the state is the payload.
type QEMU struct {
	Signature string
	Size      uint32
	ToEnd     bool // the size is not known, the input's end is the state's
}

// Checkpoint is where a Remus image goes on behind a whole checkpoint; it takes no octet.
type Checkpoint struct{ Complete int } // checkpoints before

func (*XendHeader) Name() string { return "xend header" }
func (*XLHeader) Name() string   { return "xl header" }
func (*Size) Name() string       { return "p2m_size" }
func (*ExtInfo) Name() string    { return "extended info" }
func (b *Block) Name() string    { return fmt.Sprintf("extended info %q", b.ID) }
func (*P2MList) Name() string    { return "P2M frame list" }
func (*Batch) Name() string      { return "page batch" }
func (m *Marker) Name() string   { return m.ID.String() }
func (*VCPUInfo) Name() string   { return ChunkVCPUInfo.String() }
func (p *Param) Name() string    { return p.ID.String() }
func (*TSC) Name() string        { return ChunkTSCInfo.String() }
func (*Toolstack) Name() string  { return ChunkToolstack.String() }
func (*Compressed) Name() string { return ChunkCompressedData.String() }
func (*Unmapped) Name() string   { return "unmapped PFNs" }
func (v *VCPUState) Name() string {
	return fmt.Sprintf("vCPU %d %s", v.ID, map[xcstream.Type]string{xcstream.TypeX86PVVCPUBasic: "context",
		xcstream.TypeX86PVVCPUExtended: "extended context", xcstream.TypeX86PVVCPUXSave: "XSAVE state"}[v.Type])
}
func (*SharedInfo) Name() string { return "shared info" }
func (*MagicPFNs) Name() string  { return "magic PFNs" }
func (*HVMContext) Name() string { return "HVM context" }
func (*QEMU) Name() string       { return "QEMU record" }
func (*Checkpoint) Name() string { return "checkpoint" }

func (h *XendHeader) String() string {
	return fmt.Sprintf("xend header: %d octets of configuration", h.Config)
}
func (h *XLHeader) String() string {
	return fmt.Sprintf("xl header: mandatory flags %#x, optional flags %#x, %d octets of optional data", h.Flags, h.Optional, h.Length)
}
func (s *Size) String() string    { return fmt.Sprintf("p2m_size: %#x PFNs", s.PFNs) }
func (e *ExtInfo) String() string { return fmt.Sprintf("extended info: %#x octets", e.Length) }
func (b *Block) String() string {
	s := fmt.Sprintf("%s: %#x octets", b.Name(), b.Size)
	switch b.ID {
	case blockVCPU:
		s += fmt.Sprintf(", a %d-bit guest with %d levels of page table", 8*b.Width, levels(b.Width))
	case blockXCnt:
		s += fmt.Sprintf(", %#x of XSAVE state for each vCPU", b.XSave)
	}
	return s
}
func (l *P2MList) String() string {
	return fmt.Sprintf("P2M frame list: %d frames of %d PFNs each", l.Count, guest.PageSize/l.Width)
}
func (b *Batch) String() string {
	return fmt.Sprintf("page batch: %d entries, %d with contents", len(b.Entries), b.Pages)
}
func (m *Marker) String() string { return m.ID.String() }
func (v *VCPUInfo) String() string {
	return fmt.Sprintf("%v: max_id %d, online %v", ChunkVCPUInfo, v.MaxID, v.Online)
}
func (p *Param) String() string { return fmt.Sprintf("%v: %#x", p.ID, p.Value) }
func (t *TSC) String() string {
	return fmt.Sprintf("%v: mode %d, %d ns, %d kHz, incarnation %d", ChunkTSCInfo, t.Mode, t.NSec, t.KHz, t.Incarnation)
}
func (t *Toolstack) String() string {
	s := fmt.Sprintf("%v: %d octets", ChunkToolstack, t.Size)
	const most = 4096 // of text that anybody reads
	if n := len(t.Text); n > 0 && n <= most {
		s += fmt.Sprintf(" %q", strings.Split(string(t.Text[:n-1]), "\x00"))
	}
	return s
}
func (c *Compressed) String() string {
	return fmt.Sprintf("%v: %d octets", ChunkCompressedData, c.Size)
}
func (u *Unmapped) String() string  { return fmt.Sprintf("unmapped PFNs: %d", u.Count) }
func (v *VCPUState) String() string { return fmt.Sprintf("%s: %#x octets", v.Name(), v.Size) }
func (*SharedInfo) String() string  { return "shared info" }
func (m *MagicPFNs) String() string {
	return fmt.Sprintf("magic PFNs: ioreq %#x, bufioreq %#x, store %#x", m.IOReq, m.BufIOReq, m.Store)
}
func (h *HVMContext) String() string { return fmt.Sprintf("HVM context: %d octets", h.Size) }
func (q *QEMU) String() string {
	if q.ToEnd {
		return fmt.Sprintf("QEMU record %q: to the end of the input", q.Signature)
	}
	return fmt.Sprintf("QEMU record %q: %d octets", q.Signature, q.Size)
}
func (c *Checkpoint) String() string { return fmt.Sprintf("checkpoint %d", c.Complete+1) }

// levels is how many levels of page table a PV guest with words of width octets has.
func levels(width int) uint8 {
	if width == 8 {
		return 4
	}
	return 3
}
