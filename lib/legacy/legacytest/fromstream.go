package legacytest

import (
	"cmp"
	"io"
	"maps"
	"math"
	"slices"

	"xenferry/lib/guest"
	"xenferry/lib/legacy"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// domain is a domain as a libxc stream has it.
type domain struct {
	hvm     bool
	width   int
	frames  xcstream.P2MFrames
	tsc     xcstream.TSCInfo
	batches []batch
	vcpus   map[uint32]*VCPU
	shared  []byte
	params  map[uint64]uint64
	context []byte
}

type batch struct {
	entries []xcstream.PageEntry
	pages   []byte
}

// FromStream makes of a libxc stream the image that a toolstack of Xen 4.5 whose long has the given width would have
// saved of that domain, with qemu as the emulator's state. What such an image has no place for is left out: CPU policies, MSRs
// of PV vCPUs, HVM parameters of later releases.
func FromStream(stream io.Reader, width legacy.Width, qemu []byte) ([]byte, error) {
	d, err := readDomain(stream)
	if err != nil {
		return nil, err
	}
	w := &Writer{Width: width}
	if d.hvm {
		w.Size(uint64(d.highest()) + 1)
	} else {
		d.writeStart(w)
	}
	w.TSC(guest.TSC(d.tsc))
	for _, b := range d.batches {
		d.writeBatch(w, b)
	}
	d.writeVCPUInfo(w)
	for _, id := range append(slices.Clone(hvmChunks), legacy.ChunkX87FIPWidth) {
		if v := d.params[(&legacy.Param{ID: id}).Index()]; v != 0 {
			w.Param(id, v)
		}
	}
	w.Toolstack(nil, [4]byte{})
	w.Chunk(legacy.ChunkLastCheckpoint)
	w.Chunk(legacy.ChunkEnd)
	if d.hvm {
		w.MagicPFNs(d.params[xcstream.HVMParamIOReqPFN], d.params[xcstream.HVMParamBufIOReqPFN], d.params[xcstream.HVMParamStorePFN])
		w.Blob(d.context)
		w.QEMU(legacy.QEMULibxl, qemu)
		return w.B, nil
	}
	w.Unmapped(nil)
	for _, id := range slices.Sorted(maps.Keys(d.vcpus)) {
		w.VCPU(*d.vcpus[id])
	}
	w.Octets(d.shared)
	return w.B, nil
}

// readDomain reads a libxc stream. Of records that come again the last counts.
func readDomain(stream io.Reader) (*domain, error) {
	r := xcstream.NewReader(stream, record.Lenient, 0)
	if err := r.Headers(); err != nil {
		return nil, err
	}
	d := &domain{hvm: r.Domain.Type == xcstream.DomainHVM, vcpus: map[uint32]*VCPU{}, params: map[uint64]uint64{}}
	for {
		t, _, err := r.Next()
		if err != nil {
			return nil, err
		}
		if t == xcstream.TypePageData {
			err = d.readBatch(r)
		} else {
			err = d.readState(r, t)
		}
		if err != nil || t == xcstream.TypeEnd {
			return d, err
		}
	}
}

func (d *domain) readBatch(r *xcstream.Reader) error {
	h, err := r.PageData()
	if err != nil {
		return err
	}
	b := batch{slices.Clone(h.Entries), make([]byte, h.Pages*guest.PageSize)}
	d.batches = append(d.batches, b)
	if err := r.ReadFull(b.pages); err != nil {
		return err
	}
	return r.End()
}

func (d *domain) readState(r *xcstream.Reader, t xcstream.Type) error {
	v := t.New()
	if err := r.Decode(v); err != nil {
		return err
	}
	switch v := v.(type) {
	case *xcstream.PVInfo:
		d.width = int(v.Width)
	case *xcstream.P2MFrames:
		d.frames = *v
	case *xcstream.TSCInfo:
		d.tsc = *v
	case *xcstream.SharedInfo:
		d.shared = *v
	case *xcstream.HVMParams:
		for _, p := range *v {
			d.params[p.Index] = p.Value
		}
	case *xcstream.VCPU:
		d.addVCPU(t, v)
	case *xcstream.Raw:
		if t == xcstream.TypeHVMContext {
			d.context = *v
		}
	}
	return nil
}

func (d *domain) addVCPU(t xcstream.Type, v *xcstream.VCPU) {
	if len(v.Context) == 0 {
		return
	}
	c := d.vcpus[v.ID]
	if c == nil {
		c = &VCPU{}
		d.vcpus[v.ID] = c
	}
	switch t {
	case xcstream.TypeX86PVVCPUBasic:
		c.Context = v.Context
	case xcstream.TypeX86PVVCPUExtended:
		c.Extended = append(v.Context, make([]byte, xcstream.MaxVCPUExtended-len(v.Context))...)
	case xcstream.TypeX86PVVCPUXSave:
		c.XSave = XSave(math.MaxUint64, v.Context)
	}
}

// highest is the highest PFN that the stream names.
func (d *domain) highest() (p guest.PFN) {
	for _, b := range d.batches {
		for _, e := range b.entries {
			p = max(p, e.PFN())
		}
	}
	return p
}

func (d *domain) writeStart(w *Writer) {
	w.Size(uint64(d.frames.End) + 1)
	first := d.vcpus[0]
	blocks := []Block{{"vcpu", first.Context}}
	if first.Extended != nil {
		blocks = append(blocks, Block{ID: "extv"})
	}
	if first.XSave != nil {
		blocks = append(blocks, Block{"xcnt", le.AppendUint32(nil, uint32(len(first.XSave)))})
	}
	w.ExtInfo(blocks...)
	frames := make([]uint64, len(d.frames.Frames))
	for i, p := range d.frames.Frames {
		frames[i] = uint64(p)
	}
	w.P2M(frames)
}

func (d *domain) writeBatch(w *Writer, b batch) {
	entries := make([]uint64, len(b.entries))
	for i, e := range b.entries {
		entries[i] = Entry(e.PFN(), e.Type())
	}
	w.Batch(entries, func(_ uint64, p []byte) {
		copy(p, b.pages)
		b.pages = b.pages[guest.PageSize:]
	})
}

func (d *domain) writeVCPUInfo(w *Writer) {
	online := slices.Collect(maps.Keys(d.vcpus))
	if d.hvm {
		online = []uint32{0} // the HVM context has them
	}
	highest := slices.MaxFunc(online, cmp.Compare)
	bitmap := make([]uint64, highest/64+1)
	for _, id := range online {
		bitmap[id/64] |= 1 << (id % 64)
	}
	w.VCPUInfo(int32(highest), bitmap...)
}
