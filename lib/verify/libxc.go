package verify

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// maxVCPUs is how many vCPUs a PV domain can have (xen/include/public/xen.h, MAX_VIRT_CPUS).
const maxVCPUs = 8192

// libxc checks a libxc stream and fills its part of the report.
type libxc struct {
	v     *verifier
	r     *xcstream.Reader
	order *xcstream.Order
	img   *Image
	width int // PV: octets of a guest word, 0 before X86_PV_INFO
	pages pageCounter

	maxP2MFrame guest.PFN // highest PFN that X86_PV_P2M_FRAMES lists
}

// newLibXC reads the headers of the libxc stream that the source is at.
func (v *verifier) newLibXC() (*libxc, error) {
	x := &libxc{v: v, img: &Image{Offset: v.src.off, Records: recordTable{}, Rounds: []Round{}}}
	x.r = xcstream.NewReader(v.src, record.Strict, v.src.off)
	if err := v.tolerate(x.r.Headers()); err != nil {
		return nil, err
	}
	v.report.LibXC, v.x = x.img, x
	x.img.Version, x.img.DomainType, x.img.Xen = x.r.Image.Version, x.r.Domain.Type.String(), x.r.Domain.Xen.String()
	x.order = xcstream.NewOrder(record.Strict, x.r.Image.Version, x.r.Domain.Type)
	x.pages.total = &x.img.Pages
	x.img.Guest = x.kind()
	v.tell(Item{LibXC, x.img.Offset, fmt.Sprintf("image header, version %d", x.r.Image.Version), xcstream.ImageHeaderSize})
	v.tell(Item{LibXC, x.img.Offset + xcstream.ImageHeaderSize,
		fmt.Sprintf("domain header, %v from Xen %v", x.r.Domain.Type, x.r.Domain.Xen), xcstream.DomainHeaderSize})
	return x, nil
}

// records checks records up to END, or up to a CHECKPOINT: then ended is false.
func (x *libxc) records() (ended bool, err error) {
	for {
		t, length, err := x.r.Next()
		if err != nil {
			return false, err
		}
		start := x.r.Start()
		_, err = x.order.Next(t)
		if err = x.v.tolerate(x.r.Wrap(err)); err != nil {
			return false, err
		}
		x.img.Records.add(uint32(t), t.String(), length)
		if t == xcstream.TypePageData {
			err = x.pageData()
		} else {
			err = x.body(t)
		}
		if err = x.v.tolerate(x.r.Wrap(err)); err != nil {
			return false, err
		}
		x.v.tell(Item{LibXC, start, t.String(), length})
		switch t {
		case xcstream.TypeEnd:
			return true, x.r.Wrap(x.complete())
		case xcstream.TypeCheckpoint:
			x.img.Checkpoints++
			return false, x.r.Wrap(x.complete())
		}
	}
}

// complete checks at END or CHECKPOINT what no single record shows.
func (x *libxc) complete() error {
	if x.img.MaxPFN != nil && uint64(x.maxP2MFrame) > *x.img.MaxPFN {
		return fmt.Errorf("%w: the P2M has a frame at PFN %#x, and the highest PFN is %#x", record.ErrValue, x.maxP2MFrame, *x.img.MaxPFN)
	}
	x.img.Guest = x.kind()
	return nil
}

// body takes and checks a record that is not PAGE_DATA.
func (x *libxc) body(t xcstream.Type) error {
	value, err := x.decode(t)
	if err != nil && !record.IsTolerable(err) {
		return err
	}
	if x.v.obs != nil && value != nil {
		if e := x.v.obs.record(x, value); e != nil {
			return e
		}
	}
	return err
}

// decode takes a record's body and puts what it says into the report. A tolerable error comes with the value.
func (x *libxc) decode(t xcstream.Type) (value any, err error) {
	switch t {
	case xcstream.TypeX86PVInfo:
		return decoded(x, new(xcstream.PVInfo), x.pvInfo)
	case xcstream.TypeX86PVP2MFrames:
		return decoded(x, new(xcstream.P2MFrames), x.p2mFrames)
	case xcstream.TypeX86PVVCPUBasic, xcstream.TypeX86PVVCPUExtended, xcstream.TypeX86PVVCPUXSave, xcstream.TypeX86PVVCPUMSRs:
		return decoded(x, &vcpuRecord{Type: t}, x.vcpu)
	case xcstream.TypeSharedInfo:
		return decoded(x, new(xcstream.SharedInfo), nil)
	case xcstream.TypeX86TSCInfo:
		return decoded(x, new(xcstream.TSCInfo), func(t *xcstream.TSCInfo) error {
			x.img.TSC = &TSC{t.Mode, t.KHz, t.NSec, t.Incarnation}
			return nil
		})
	case xcstream.TypeHVMContext:
		return decoded(x, new(contextBlob), x.hvmContext)
	case xcstream.TypeHVMParams:
		return decoded(x, new(xcstream.HVMParams), x.hvmParams)
	case xcstream.TypeX86CPUIDPolicy:
		return decoded(x, new(xcstream.CPUIDPolicy), func(p *xcstream.CPUIDPolicy) error {
			x.img.CPUIDLeaves = len(*p)
			return nil
		})
	case xcstream.TypeX86MSRPolicy:
		return decoded(x, new(xcstream.MSRPolicy), func(p *xcstream.MSRPolicy) error {
			x.img.MSRs = len(*p)
			return nil
		})
	case xcstream.TypeDomain:
		return decoded(x, new(xcstream.Domain), func(d *xcstream.Domain) error {
			x.img.Domain = &d.Spec
			return nil
		})
	case xcstream.TypeEnd, xcstream.TypeStaticDataEnd, xcstream.TypeVerify, xcstream.TypeCheckpoint:
		x.pages.border(t == xcstream.TypeVerify)
		return decoded(x, new(xcstream.Empty), nil)
	}
	return nil, x.r.Skip() // optional and unknown: Order refuses all others
}

// decoded takes the current record's body as v and, if it is one, hands it to use.
func decoded[V xcstream.Decoder](x *libxc, v V, use func(V) error) (any, error) {
	err := x.r.Decode(v)
	if err != nil && !record.IsTolerable(err) {
		return nil, err
	}
	if use == nil {
		return v, err
	}
	if e := use(v); e != nil && !record.IsTolerable(e) {
		return nil, e
	} else if err == nil {
		err = e
	}
	return v, err
}

func (x *libxc) pvInfo(i *xcstream.PVInfo) error {
	x.width = int(i.Width)
	x.img.Guest = x.kind()
	return nil
}

func (x *libxc) p2mFrames(f *xcstream.P2MFrames) error {
	if err := f.Check(x.width); err != nil {
		return err
	}
	if end := uint64(f.End); x.img.MaxPFN == nil || *x.img.MaxPFN < end {
		x.img.MaxPFN = &end
	}
	x.img.P2MFrames = uint64(f.End)/uint64(guest.PageSize/x.width) + 1
	if len(f.Frames) > 0 {
		x.maxP2MFrame = max(x.maxP2MFrame, slices.Max(f.Frames))
	}
	return nil
}

// vcpuRecord is a vCPU record with its type.
type vcpuRecord struct {
	xcstream.VCPU
	Type xcstream.Type
}

func (x *libxc) vcpu(rec *vcpuRecord) error {
	if err := rec.Check(rec.Type, x.width); err != nil {
		return err
	}
	if rec.ID >= maxVCPUs {
		return fmt.Errorf("%w: vCPU %d: a PV domain has at most %d", record.ErrValue, rec.ID, maxVCPUs)
	}
	size := len(rec.Context)
	switch row := x.vcpuRow(rec.ID); rec.Type {
	case xcstream.TypeX86PVVCPUBasic:
		row.Basic = size
	case xcstream.TypeX86PVVCPUExtended:
		row.Extended = size
	case xcstream.TypeX86PVVCPUXSave:
		row.XSave = size
	case xcstream.TypeX86PVVCPUMSRs:
		row.MSRs = size
	}
	if size == 0 {
		x.v.warn(x.r.Wrap(fmt.Errorf("no context of vCPU %d (erratum 1: savers of Xen 4.6 to 4.8 wrote that)", rec.ID)))
		return nil
	}
	return cmp.Or(x.order.VCPU(rec.Type, rec.ID, size), rec.checkContext())
}

// checkContext looks into the contexts that name something a second time or have reserved fields.
func (rec *vcpuRecord) checkContext() error {
	switch {
	case rec.Type == xcstream.TypeX86PVVCPUMSRs:
		_, err := rec.DecodeMSRs(record.Strict)
		return err
	case rec.Type == xcstream.TypeX86PVVCPUExtended && len(rec.Context) >= 4:
		if id := binary.LittleEndian.Uint32(rec.Context); id != rec.ID {
			return fmt.Errorf("%w: state of vCPU %d in a record of vCPU %d", record.ErrUnusual, id, rec.ID)
		}
	}
	return nil
}

// vcpuRow is the report's row for a vCPU.
func (x *libxc) vcpuRow(id uint32) *VCPU {
	i, found := slices.BinarySearchFunc(x.img.VCPUs, id, func(v VCPU, id uint32) int { return cmp.Compare(v.ID, id) })
	if !found {
		x.img.VCPUs = slices.Insert(x.img.VCPUs, i, VCPU{ID: id})
	}
	return &x.img.VCPUs[i]
}
