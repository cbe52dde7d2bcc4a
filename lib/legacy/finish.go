package legacy

import (
	"fmt"
	"slices"
	"strings"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// blob writes a record whose body is head and the item's payload. To salvage, the payload has to be there first.
func (c *converter) blob(typ uint32, head []byte) error {
	if !c.Salvage {
		return c.state.payload(typ, head, c.r)
	}
	data, err := c.r.Body(maxHeld)
	if err != nil {
		return err
	}
	return c.state.record(typ, func(b []byte) []byte { return append(append(b, head...), data...) })
}

// hvmEnd ends an HVM guest's libxc stream, unless that would make it look complete while its QEMU record is not there.
func (c *converter) hvmEnd() error {
	if c.Format == LibXC && !c.r.opts.SkipQEMU {
		c.endDue = true
		return nil
	}
	return c.endLibxc()
}

// endLibxc ends the libxc stream, and writes the libxl record that may come next.
func (c *converter) endLibxc() error {
	c.endDue, c.whole = false, true
	if err := c.state.libxc(xcstream.TypeEnd, xcstream.Empty{}); err != nil {
		return err
	}
	if len(c.text) == 0 {
		return nil
	}
	c.oldText = true
	return c.state.record(uint32(xlstream.TypeEmulatorXenstore), func(b []byte) []byte {
		return append(xlstream.EmulatorHeader{ID: xlstream.EmulatorUnknown}.Append(b, record.LittleEndian), c.text...)
	})
}

// qemu writes the emulator's state: as a record, or behind a libxc stream as it was.
func (c *converter) qemu(q *QEMU) (became, dropped string, err error) {
	if c.Format == LibXC {
		return "the record itself, behind END", "", c.copyQEMU(q)
	}
	became = xlstream.TypeEmulatorContext.String()
	head := xlstream.EmulatorHeader{ID: xlstream.EmulatorUnknown}.Append(nil, record.LittleEndian)
	if !q.ToEnd {
		return became, "", c.blob(uint32(xlstream.TypeEmulatorContext), head)
	}
	return became, "", c.unknownSize(xlstream.TypeEmulatorContext, head)
}

// unknownSize writes a record whose payload is what is left of the input: how long that is must be known first.
func (c *converter) unknownSize(t xlstream.Type, head []byte) error {
	held, err := c.Spool()
	if err != nil {
		return fmt.Errorf("make a place for what has no size: %w", err)
	}
	start := c.r.Offset()
	if err := c.r.MoveTo(held.Writer()); err != nil {
		return err
	}
	size := c.r.Offset() - start
	frame := record.Header{Type: uint32(t), Length: uint32(uint64(len(head)) + size)}
	if uint64(frame.Length) != uint64(len(head))+size {
		return fmt.Errorf("%w: %d octets do not fit into a record", record.ErrLimit, size)
	}
	if err := c.state.write(append(frame.Append(nil), head...)); err != nil {
		return err
	}
	if err := held.MoveTo(c.state.w); err != nil {
		return fmt.Errorf("write the output at offset %#x: %w", c.state.off, err)
	}
	c.state.off += size
	return c.state.write(make([]byte, frame.Padding()))
}

// copyQEMU ends the libxc stream and writes the QEMU record as it was. A state of usual size has to be there first.
func (c *converter) copyQEMU(q *QEMU) error {
	head := []byte(q.Signature)
	if !q.ToEnd {
		head = le.AppendUint32(head, q.Size)
	}
	if q.ToEnd || q.Size > maxHeld {
		if err := c.endLibxc(); err != nil {
			return err
		}
		if err := c.state.write(head); err != nil {
			return err
		}
		return c.state.move(c.r)
	}
	data, err := c.r.Body(maxHeld)
	if err != nil {
		return err
	}
	if err := c.endLibxc(); err != nil {
		return err
	}
	return c.state.write(slices.Concat(head, data))
}

// finish writes what is left when the image is over.
func (c *converter) finish() error {
	if c.spools != nil {
		if err := c.lastCheckpoint(); err != nil {
			return err
		}
	}
	if c.Format == LibXL {
		if err := c.out.record(uint32(xlstream.TypeEnd), func(b []byte) []byte { return b }); err != nil {
			return err
		}
	}
	return c.damages()
}

// abandon ends what salvaged an image that is not whole.
func (c *converter) abandon() error {
	if c.endDue {
		if err := c.endLibxc(); err != nil {
			return err
		}
	}
	if c.spools != nil {
		if err := c.unspool(c.spools.state, c.state.off); err != nil {
			return err
		}
	}
	c.missing = strings.Join(c.lacks(), ", ")
	return c.damages()
}

// lacks is what the output does not have.
func (c *converter) lacks() (parts []string) {
	hvm := c.r.Layout().Domain == xcstream.DomainHVM
	emulator := hvm && (c.Format == LibXL || !c.r.opts.SkipQEMU)
	if !c.whole {
		if !c.r.ended {
			parts = append(parts, "further memory, if there was any")
		}
		switch {
		case hvm:
			parts = append(parts, "HVM context")
		default:
			if !c.r.ended {
				parts = append(parts, "all vCPUs")
			} else if n := len(c.r.vcpus); n > 0 {
				parts = append(parts, fmt.Sprintf("state of the last %d vCPUs", n))
			}
			parts = append(parts, "shared info")
		}
		parts = append(parts, xcstream.TypeEnd.String())
	}
	if emulator {
		parts = append(parts, "the emulator's state")
	}
	if c.Format == LibXL {
		parts = append(parts, xlstream.TypeEnd.String())
	}
	return parts
}

// salvageBatch writes the pages of a batch that are whole, and of those that come twice the later.
func (c *converter) salvageBatch(b *Batch) error {
	data, bad := c.r.Body(maxHeld)
	var entries []xcstream.PageEntry
	var pages [][]byte
	latest := map[guest.PFN]int{}
	for i, e := range b.Entries {
		latest[e.PFN()] = i
	}
	for i, e := range b.Entries {
		var page []byte
		if e.Type() < guest.Broken {
			if len(data) < guest.PageSize {
				break
			}
			page, data = data[:guest.PageSize], data[guest.PageSize:]
		}
		if b.Twice && latest[e.PFN()] != i {
			continue
		}
		entries = append(entries, e)
		if page != nil {
			pages = append(pages, page)
		}
	}
	if len(entries) > 0 || bad == nil {
		if err := c.pages.write(pageDataHead(nil, entries, len(pages))); err != nil {
			return err
		}
		for _, p := range pages {
			if err := c.pages.write(p); err != nil {
				return err
			}
		}
	}
	return bad
}
