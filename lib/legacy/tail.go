package legacy

import (
	"errors"
	"fmt"
	"io"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// tail begins what is behind the chunks.
func (r *Reader) tail() (Item, error) {
	r.ended = true
	if r.layout.Domain == xcstream.DomainHVM {
		return r.magicPFNs()
	}
	r.begin("unmapped PFNs")
	count, err := r.u32()
	r.left = uint64(count) * uint64(r.layout.Width)
	r.vcpus, r.next = r.online, r.vcpu
	return &Unmapped{count}, err
}

// vcpu takes the context of the next vCPU, or what is behind the last.
func (r *Reader) vcpu() (Item, error) {
	if len(r.vcpus) == 0 {
		r.begin("shared info")
		r.left, r.next = guest.PageSize, r.checkpoint
		return &SharedInfo{}, nil
	}
	size := uint64(xcstream.VCPUContextSize32)
	if r.width == 8 {
		size = xcstream.VCPUContextSize64
	}
	r.next = r.vcpuExtended
	return r.state(xcstream.TypeX86PVVCPUBasic, size), nil
}

// state is an item of the current vCPU.
func (r *Reader) state(t xcstream.Type, size uint64) *VCPUState {
	v := &VCPUState{ID: r.vcpus[0], Type: t, Size: size}
	r.begin(v.Name())
	r.left = size
	return v
}

func (r *Reader) vcpuExtended() (Item, error) {
	if !r.extended {
		return r.vcpuXSave()
	}
	r.next = r.vcpuXSave
	return r.state(xcstream.TypeX86PVVCPUExtended, xcstream.MaxVCPUExtended), nil
}

// xsaveHead is what each vCPU's XSAVE state has in front: mask and size.
const xsaveHead = 16

func (r *Reader) vcpuXSave() (Item, error) {
	r.next = r.vcpu
	if r.xsave == 0 {
		r.vcpus = r.vcpus[1:]
		return r.vcpu()
	}
	v := r.state(xcstream.TypeX86PVVCPUXSave, 0)
	r.vcpus = r.vcpus[1:]
	b, err := r.take(xsaveHead)
	if err != nil {
		return nil, err
	}
	v.Mask, v.Size = le.Uint64(b), le.Uint64(b[8:])
	if v.Size+xsaveHead != uint64(r.xsave) || v.Size > uint64(r.xsave) {
		return nil, fmt.Errorf("%w: %#x octets, the extended info says %#x with %d in front", record.ErrLength, v.Size, r.xsave, xsaveHead)
	}
	r.left = v.Size
	return v, nil
}

// magicPFNsSize is the size of MagicPFNs in octets.
const magicPFNsSize = 24

func (r *Reader) magicPFNs() (Item, error) {
	r.begin("magic PFNs")
	b, err := r.take(magicPFNsSize)
	r.next = r.hvmContext
	return &MagicPFNs{le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:])}, err
}

func (r *Reader) hvmContext() (Item, error) {
	r.begin("HVM context")
	size, err := r.u32()
	r.left, r.next = uint64(size), r.qemu
	if r.opts.SkipQEMU {
		r.next = r.checkpoint
	}
	return &HVMContext{size}, err
}

func (r *Reader) qemu() (Item, error) {
	r.begin("QEMU record")
	b, err := r.take(len(QEMULibxl))
	if err != nil {
		return nil, err
	}
	q := &QEMU{Signature: string(b)}
	r.next = r.checkpoint
	switch q.Signature {
	case QEMULibxl, QEMURemus:
		q.Size, err = r.u32()
		r.left = uint64(q.Size)
		return q, err
	case QEMUXend:
		q.ToEnd, r.toEnd = true, true
		return q, nil
	}
	return nil, fmt.Errorf("%w: signature %q", ErrUnsupported, q.Signature)
}

// checkpoint is behind a whole checkpoint: the end, or where the next begins.
func (r *Reader) checkpoint() (Item, error) {
	r.complete++
	r.next = func() (Item, error) { return nil, io.EOF }
	if !r.opts.Checkpoints || r.last {
		return nil, io.EOF
	}
	r.begin("checkpoint")
	switch head, err := r.src.Peek(4); {
	case len(head) == 0 && errors.Is(err, io.ErrUnexpectedEOF):
		return nil, io.EOF
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	}
	r.stale, r.next = true, r.chunk
	return &Checkpoint{r.complete}, nil
}
