package legacy

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// Options say how a Reader reads.
type Options struct {
	// Layout is what the caller knows of the image. What it leaves open is detected. An image that certainly has another
	// layout is refused; whatever else turns out to be wrong with it, the error says which it looks like.
	Layout Layout
	// XL asks for an xl header. Without it one is taken where there is one.
	XL bool
	// SkipQEMU leaves an HVM image's QEMU record unread.
	SkipQEMU bool
	// Offset is how many octets of the input were taken before.
	Offset uint64
	// Checkpoints reads on where a Remus image goes on; else its first checkpoint is all of it.
	Checkpoints bool
}

// Reader takes an image apart. Next returns one Item after the other, and io.EOF behind the last, without a look at what
// follows. The payload of an item, if it has any, is taken by ReadFull, Body or MoveTo; Next skips what is left of it.
type Reader struct {
	source
	opts   Options
	layout Layout

	looks   Layout // by the first octets; zero if they look like nothing
	certain bool   // no writer makes an image of another layout begin so
	why     error  // why they look like nothing
	next    func() (Item, error)

	size       Size
	extLeft    int64 // octets of extended info not yet taken
	width      int   // of the guest's words, octets
	extended   bool
	xsave      uint32
	online     []uint32 // in the order of the tail
	vcpus      []uint32 // not yet taken in the tail
	stale      bool     // online is an earlier checkpoint's
	ended      bool     // END came
	afterSmall bool     // the chunk before was no page batch
	ahead      uint64   // offset up to which small chunks were looked at
	last       bool     // LAST_CHECKPOINT came
	complete   int      // checkpoints taken
	toEnd      bool     // the payload is what is left of the input
	entries    []byte
	batch      Batch
	seen       map[uint64]struct{}
}

// NewReader returns a Reader of src. Where src is a record.Copier, that moves payloads.
func NewReader(src io.Reader, opts Options) *Reader {
	r := &Reader{source: source{src: record.NewPeeker(src), off: opts.Offset}, opts: opts, layout: opts.Layout}
	r.next = r.headers
	return r
}

// Layout is the image's, once Size was returned.
func (r *Reader) Layout() Layout { return r.layout }

// Certain reports whether no other layout than Layout can be the image's.
func (r *Reader) Certain() bool { return r.certain }

// Offset is that of the next octet.
func (r *Reader) Offset() uint64 { return r.off }

// Start is the offset of the current item.
func (r *Reader) Start() uint64 { return r.start }

// Whole is how many checkpoints were whole so far; an image that is not Remus's has one.
func (r *Reader) Whole() int { return r.complete }

// Left is how much of the current item's payload is not yet taken. Of one that goes to the input's end it is unknown.
func (r *Reader) Left() uint64 { return r.left }

// Next returns the next item. The errors are *record.Error, and match record.IsInvalid or ErrUnsupported or are the
// source's own. After a *Damage the item is there all the same, and Next goes on behind it.
func (r *Reader) Next() (Item, error) {
	if err := r.MoveTo(io.Discard); err != nil {
		return nil, err
	}
	item, err := r.next()
	if err == nil || err == io.EOF {
		return item, err
	}
	var hurt *Damage
	if !errors.As(err, &hurt) {
		item = nil
	}
	return item, r.explain(r.wrap(err))
}

// Damage is an error that leaves the Reader's place known: the item that came with it is what is good of it.
type Damage struct{ Err error }

func (d *Damage) Error() string { return d.Err.Error() }
func (d *Damage) Unwrap() error { return d.Err }

func damage(kind error, format string, args ...any) error {
	return &Damage{fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))}
}

// ReadFull fills p from the payload, which must have as much.
func (r *Reader) ReadFull(p []byte) error {
	before := r.off
	err := r.readFull(p)
	r.left -= r.off - before
	return err
}

// Body takes what is left of the payload, at most limit octets. The slice is the Reader's.
func (r *Reader) Body(limit uint64) ([]byte, error) {
	before := r.off
	b, err := r.body(r.left, limit)
	r.left -= r.off - before
	return b, err
}

// MoveTo passes what is left of the payload on to w, through the kernel where source and w are made for that.
func (r *Reader) MoveTo(w io.Writer) error {
	if r.toEnd {
		r.toEnd, r.left = false, 0
		n, err := r.src.CopyTo(w, math.MaxInt64)
		r.off += n
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return r.wrap(err)
	}
	if r.left == 0 {
		return nil
	}
	before := r.off
	err := r.moveTo(w, r.left)
	r.left -= r.off - before
	return err
}

// explain adds to err what the image looks like, if that is not what the caller said it is.
func (r *Reader) explain(err error) error {
	var at *record.Error
	if !errors.As(err, &at) || !record.IsInvalid(at.Err) && !errors.Is(at.Err, ErrUnsupported) {
		return err
	}
	switch {
	case r.why != nil && r.opts.Layout != (Layout{}) && !errors.Is(r.why, record.ErrTruncated):
		at.Err = fmt.Errorf("%w (the image was said to have %v; what it looks like: %w)", at.Err, r.layout, r.why)
		r.why = nil
	case r.looks != (Layout{}) && r.looks != r.layout:
		at.Err = fmt.Errorf("%w (the image was said to have %v, but looks like %v)", at.Err, r.layout, r.looks)
		r.looks = r.layout
	}
	return err
}

// xendMagic begins what xend saved.
const xendMagic = "LinuxGuestRecord"

// headers takes what stands in front of the image, and then begins it.
func (r *Reader) headers() (Item, error) {
	r.begin("image")
	head, err := r.src.Peek(len(xlstream.XLMagic))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	switch {
	case string(head) == xlstream.XLMagic:
		return r.xlHeader()
	case r.opts.XL:
		return nil, fmt.Errorf("%w: no xl header", record.ErrValue)
	case len(head) >= len(xendMagic) && string(head[:len(xendMagic)]) == xendMagic:
		return r.xendHeader()
	}
	return r.begins()
}

func (r *Reader) xlHeader() (Item, error) {
	r.begin("xl header")
	if err := r.readFull(make([]byte, len(xlstream.XLMagic))); err != nil {
		return nil, err
	}
	b, err := r.take(16)
	h := &XLHeader{le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:])}
	r.left, r.next = uint64(h.Length), r.begins
	return h, err
}

func (r *Reader) xendHeader() (Item, error) {
	r.begin("xend header")
	b, err := r.take(len(xendMagic) + 4)
	if err != nil {
		return nil, err
	}
	b = b[len(xendMagic):]
	slices.Reverse(b) // the one big-endian number in all of this
	h := &XendHeader{le.Uint32(b)}
	r.left, r.next = uint64(h.Config), r.begins
	return h, nil
}

// begins finds out how the image is laid out, and takes p2m_size.
func (r *Reader) begins() (Item, error) {
	r.begin("image")
	head, err := r.src.Peek(DetectSize)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	looks, certain, why := Detect(head)
	r.looks, r.why, r.certain = looks, why, certain
	said := r.layout
	if said.Width == 0 {
		r.layout.Width = looks.Width
	}
	if said.Domain == 0 {
		r.layout.Domain = looks.Domain
	}
	switch {
	case why != nil && (said.Width == 0 || said.Domain == 0):
		return nil, why
	case certain && looks != r.layout:
		return nil, fmt.Errorf("%w: not an image of %v", record.ErrValue, r.layout)
	}
	r.begin("p2m_size")
	if r.size.PFNs, err = r.long(r.layout.Width); err != nil {
		return nil, err
	}
	r.next = r.chunk
	if r.layout.Domain == xcstream.DomainPV {
		r.next = r.extInfo
	}
	return &r.size, nil
}

func (r *Reader) extInfo() (Item, error) {
	r.begin("extended info")
	marker, err := r.long(r.layout.Width)
	if err != nil {
		return nil, err
	}
	if want := uint64(1)<<(8*r.layout.Width-1)<<1 - 1; marker != want {
		return nil, fmt.Errorf("%w: begins with %#x, not with %#x", record.ErrValue, marker, want)
	}
	length, err := r.u32()
	r.extLeft, r.next = int64(length), r.block
	return &ExtInfo{length}, err
}

// block takes a block of extended info, or the P2M frame list behind the last.
func (r *Reader) block() (Item, error) {
	if r.extLeft <= 0 {
		return r.p2mList()
	}
	r.begin("extended info")
	head, err := r.take(8)
	if err != nil {
		return nil, err
	}
	b := &Block{ID: string(head[:4]), Size: le.Uint32(head[4:])}
	r.name = b.Name()
	r.extLeft -= 8 + int64(b.Size)
	r.left = uint64(b.Size)
	switch {
	case b.ID == blockVCPU:
		err = r.vcpuBlock(b)
	case b.ID == blockExtV:
		r.extended = true
	case b.ID != blockXCnt:
		err = damage(record.ErrUnknown, "no writer has such a block")
	case b.Size < 4:
		err = damage(record.ErrLength, "%d octets, want 4", b.Size)
	default:
		var x [4]byte
		err = r.ReadFull(x[:])
		b.XSave = le.Uint32(x[:])
		r.xsave = b.XSave
	}
	if err == nil && r.extLeft < 0 {
		err = damage(record.ErrLength, "the blocks are %d octets longer than all of them should be", -r.extLeft)
	}
	return b, err
}

// vcpuBlock tells the guest's width by a vCPU context's size.
func (r *Reader) vcpuBlock(b *Block) error {
	switch b.Size {
	case xcstream.VCPUContextSize64:
		b.Width = 8
	case xcstream.VCPUContextSize32:
		b.Width = 4
	default:
		return damage(record.ErrLength, "%#x octets are no vCPU context: want %#x or %#x", b.Size, xcstream.VCPUContextSize64, xcstream.VCPUContextSize32)
	}
	r.width = b.Width
	return nil
}

func (r *Reader) p2mList() (Item, error) {
	r.begin("P2M frame list")
	switch {
	case r.width == 0:
		return nil, fmt.Errorf("%w: extended info without a %q block, so that the guest's width is not known", record.ErrMissing, blockVCPU)
	case r.size.PFNs == 0 || r.size.PFNs > math.MaxUint32+1:
		return nil, fmt.Errorf("%w: p2m_size is %#x", record.ErrValue, r.size.PFNs)
	}
	perFrame := uint64(guest.PageSize / r.width)
	l := &P2MList{PFNs: r.size.PFNs, Width: r.width, Count: (r.size.PFNs-1)/perFrame + 1}
	r.left, r.next = l.Count*uint64(r.layout.Width), r.chunk
	return l, nil
}
