package legacy

import (
	"errors"
	"fmt"
	"io"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// Format is what an image is converted to.
type Format uint8

// The formats.
const (
	LibXC Format = iota + 1 // a bare libxc stream, and the QEMU record behind it as it was
	LibXL                   // a libxl stream
)

// Conversion says how Convert works.
type Conversion struct {
	// Format is the output's. 0 is LibXL for an image with an xl header, else LibXC.
	Format  Format
	Version uint32 // of the libxc stream: xcstream.Version2 or Version3
	// Last takes a Remus image's last whole checkpoint, not its first. The Reader must have Checkpoints set.
	Last bool
	// Spool makes what keeps a checkpoint until it is whole, and what of unknown size is to become a record.
	Spool func() (Spool, error)
	// Salvage leaves out what is damaged where that is possible, and takes all that is whole before the place where it is not.
	Salvage bool
	// Event, if not nil, is told of each item once it was converted. It may not keep the item.
	Event func(Event)
}

// Spool keeps octets until somebody knows whether they are wanted.
type Spool interface {
	// Writer is where they come in.
	Writer() io.Writer
	// MoveTo writes them to w and forgets them.
	MoveTo(w io.Writer) error
	// Reset forgets them.
	Reset() error
}

// Event is what became of an item.
type Event struct {
	Item    Item
	Offset  uint64 // of the item in the input
	Octets  uint64 // of it, payload included
	Became  string // the record's name, or empty
	Dropped string // what is not in the output, and why, or empty
}

// Result is what Convert did.
type Result struct {
	Input       uint64 // octets taken
	Output      uint64 // octets written
	Checkpoints int    // whole ones
	Problems    int    // with Salvage: damages
	Missing     string // with Salvage: what the output lacks
}

// The origin in a domain header: the major number says that the stream was converted, the minor one by which converter.
var origin = guest.Release{Major: 0, Minor: 1}

// Convert writes what r reads to dst as a stream. On an error dst has no stream that could be taken for a whole one,
// but for a libxc stream whose QEMU record of more than 8 MiB is not whole. With Salvage the END of a layer is there if
// all of that layer is, and the error is all the damage that was found; then too it is an error.
//
// An error of the image matches record.IsInvalid or ErrUnsupported and has offset and item.
func Convert(dst io.Writer, r *Reader, how Conversion) (Result, error) {
	c := &converter{Conversion: how, r: r, out: sink{w: dst}}
	c.pages, c.state = &c.out, &c.out
	err := c.run()
	return Result{r.Offset(), c.out.off, r.complete, c.found, c.missing}, err
}

type converter struct {
	Conversion
	r            *Reader
	out          sink
	pages, state *sink // where memory and state go: out, or until a checkpoint is whole a spool
	spools       *spools

	params   xcstream.HVMParams
	tsc      *TSC
	text     []byte  // of EMULATOR_XENSTORE_DATA
	oldText  bool    // text is an earlier checkpoint's
	endDue   bool    // the libxc stream lacks only its END
	whole    bool    // the libxc stream is whole
	problems []error // the first that were found
	found    int     // problems
	missing  string
}

// run converts item after item.
func (c *converter) run() error {
	if c.Last {
		if err := c.openSpools(); err != nil {
			return err
		}
	}
	for {
		item, err := c.r.Next()
		if err == io.EOF {
			return c.finish()
		}
		var hurt *Damage
		if errors.As(err, &hurt) && c.Salvage {
			c.problem(err)
			err = nil
		}
		if err == nil {
			err = c.convert(item)
		}
		if err == nil {
			continue
		}
		if !record.IsInvalid(err) && !errors.Is(err, ErrUnsupported) {
			return err // of input or output
		}
		switch {
		case c.Last && c.r.complete > 0:
			c.event(Event{Item: &Checkpoint{c.r.complete}, Offset: c.r.Start(), Dropped: fmt.Sprintf("not whole: %v", err)})
			return c.finish()
		case c.Salvage:
			c.problem(err)
			return c.abandon()
		}
		return err
	}
}

// maxProblems is how many damages are kept; a damaged image can have one in every octet.
const maxProblems = 20

func (c *converter) problem(err error) {
	if c.found++; c.found <= maxProblems {
		c.problems = append(c.problems, err)
	}
}

// damages is all the damage that was found, as an error.
func (c *converter) damages() error {
	err := errors.Join(c.problems...)
	if more := c.found - len(c.problems); more > 0 {
		err = errors.Join(err, fmt.Errorf("and %d more", more))
	}
	return err
}

// convert makes of an item what becomes of it.
func (c *converter) convert(item Item) error {
	start := c.r.Start()
	became, dropped, err := c.item(item)
	if err != nil {
		return c.r.wrap(err)
	}
	c.event(Event{item, start, c.r.Offset() - start, became, dropped})
	return nil
}

func (c *converter) event(e Event) {
	if c.Event != nil {
		c.Event(e)
	}
}

// item writes the records of an item.
func (c *converter) item(item Item) (became, dropped string, err error) {
	switch it := item.(type) {
	case *XendHeader:
		return "", "no toolstack of today has a place for xend's configuration", nil
	case *XLHeader:
		c.choose(LibXL)
		return "xl header", "", c.xlHeader(it)
	case *Size:
		c.choose(LibXC)
		return "stream headers", "", c.headers()
	case *ExtInfo:
		return "", "", nil
	case *Block:
		if it.Width == 0 {
			return "", "", nil
		}
		info := xcstream.PVInfo{Width: uint8(it.Width), Levels: levels(it.Width)}
		return xcstream.TypeX86PVInfo.String(), "", c.out.libxc(xcstream.TypeX86PVInfo, info)
	case *P2MList:
		return xcstream.TypeX86PVP2MFrames.String(), "", c.p2mList(it)
	case *Batch:
		return c.batch(it)
	case *Marker:
		return c.marker(it)
	case *VCPUInfo:
		return "", "the vCPUs' own records say which there are", nil
	case *Param:
		return c.param(it)
	case *TSC:
		return c.tscInfo(it)
	case *Toolstack:
		return c.toolstack(it)
	case *Checkpoint:
		return "", "", c.commit()
	}
	return c.tailItem(item)
}

// choose sets the format if it is not given.
func (c *converter) choose(f Format) {
	if c.Format == 0 {
		c.Format = f
	}
}

// tailItem writes the records of an item behind the chunks.
func (c *converter) tailItem(item Item) (became, dropped string, err error) {
	switch it := item.(type) {
	case *Unmapped:
		if it.Count > 0 {
			dropped = "a stream of today has no such list; what came of these PFNs stays"
		}
		return "", dropped, nil
	case *VCPUState:
		if it.Type == xcstream.TypeX86PVVCPUXSave {
			dropped = "the mask, which is in the state too"
		}
		return it.Type.String(), dropped, c.blob(uint32(it.Type), xcstream.VCPU{ID: it.ID}.Append(nil))
	case *SharedInfo:
		if err = c.blob(uint32(xcstream.TypeSharedInfo), nil); err == nil {
			err = c.endLibxc()
		}
		return xcstream.TypeSharedInfo.String(), "", err
	case *MagicPFNs:
		return xcstream.TypeHVMParams.String(), "", c.state.libxc(xcstream.TypeHVMParams, xcstream.HVMParams{
			{Index: xcstream.HVMParamIOReqPFN, Value: it.IOReq},
			{Index: xcstream.HVMParamBufIOReqPFN, Value: it.BufIOReq},
			{Index: xcstream.HVMParamStorePFN, Value: it.Store},
		})
	case *HVMContext:
		if err = c.blob(uint32(xcstream.TypeHVMContext), nil); err == nil {
			err = c.hvmEnd()
		}
		return xcstream.TypeHVMContext.String(), "", err
	case *QEMU:
		return c.qemu(it)
	}
	panic(fmt.Sprintf("no conversion of %T", item)) // the Reader has an item that this switch has not
}

// xlStreamV2 is the mandatory flag of an xl header that says that a libxl stream follows.
const xlStreamV2 = 1 << 1

func (c *converter) xlHeader(h *XLHeader) error {
	flags := h.Flags
	if c.Format == LibXL {
		flags |= xlStreamV2
	}
	b := []byte(xlstream.XLMagic)
	for _, v := range [...]uint32{h.ByteOrder, flags, h.Optional, h.Length} {
		b = le.AppendUint32(b, v)
	}
	if err := c.out.write(b); err != nil {
		return err
	}
	return c.out.move(c.r)
}

// headers writes the headers of all layers, and for HVM the end of the static data, which it has none of.
func (c *converter) headers() error {
	var b []byte
	if c.Format == LibXL {
		b = xlstream.Header{Options: xlstream.OptionLegacy}.Append(b)
		b = record.Header{Type: uint32(xlstream.TypeLibxcContext)}.Append(b)
	}
	b = xcstream.ImageHeader{Version: c.Version}.Append(b)
	b = xcstream.DomainHeader{Type: c.r.Layout().Domain, Xen: origin}.Append(b)
	if err := c.out.write(b); err != nil {
		return err
	}
	if c.r.Layout().Domain == xcstream.DomainHVM {
		return c.staticDataEnd()
	}
	return nil
}

func (c *converter) staticDataEnd() error {
	if c.Version == xcstream.Version2 {
		return nil
	}
	return c.out.libxc(xcstream.TypeStaticDataEnd, xcstream.Empty{})
}

// p2mList writes X86_PV_P2M_FRAMES, whose PFNs have 64 bits.
func (c *converter) p2mList(l *P2MList) error {
	if err := c.staticDataEnd(); err != nil {
		return err
	}
	head := xcstream.P2MFrames{End: uint32(l.PFNs - 1)}.Append(nil)
	if c.r.Layout().Width == Width64 {
		return c.out.payload(uint32(xcstream.TypeX86PVP2MFrames), head, c.r)
	}
	frame := record.Header{Type: uint32(xcstream.TypeX86PVP2MFrames), Length: uint32(uint64(len(head)) + 8*l.Count)}
	if err := c.out.write(append(frame.Append(nil), head...)); err != nil {
		return err
	}
	narrow, wide := make([]byte, 4<<10), make([]byte, 0, 8<<10)
	for c.r.Left() > 0 {
		part := narrow[:min(uint64(len(narrow)), c.r.Left())]
		if err := c.r.ReadFull(part); err != nil {
			return err
		}
		wide = wide[:0]
		for ; len(part) > 0; part = part[4:] {
			wide = le.AppendUint64(wide, uint64(le.Uint32(part)))
		}
		if err := c.out.write(wide); err != nil {
			return err
		}
	}
	return nil
}
