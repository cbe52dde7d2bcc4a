package legacy

import (
	"fmt"
	"io"

	"xenferry/lib/record"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// batch writes a PAGE_DATA.
func (c *converter) batch(b *Batch) (became, dropped string, err error) {
	if b.Bare > 0 {
		dropped = fmt.Sprintf("%d entries that name no PFN", b.Bare)
	}
	became = xcstream.TypePageData.String()
	if c.Salvage {
		return became, dropped, c.salvageBatch(b)
	}
	c.pages.buf = pageDataHead(c.pages.buf[:0], b.Entries, b.Pages)
	if err := c.pages.write(c.pages.buf); err != nil {
		return "", "", err
	}
	return became, dropped, c.pages.move(c.r)
}

// pageDataHead adds a PAGE_DATA's header and body up to its pages to b.
func pageDataHead(b []byte, entries []xcstream.PageEntry, pages int) []byte {
	b = record.Header{Type: uint32(xcstream.TypePageData), Length: uint32(xcstream.PageDataSize(len(entries), pages))}.Append(b)
	b = le.AppendUint64(b, uint64(len(entries)))
	for _, e := range entries {
		b = le.AppendUint64(b, uint64(e))
	}
	return b
}

func (c *converter) marker(m *Marker) (became, dropped string, err error) {
	switch m.ID {
	case ChunkEnableVerify:
		return "", "the batches behind it are the same pages again, and are converted as all others", nil
	case ChunkLastCheckpoint:
		return "", "no record is needed to say so", nil
	case ChunkEnableCompression:
		return "", "nothing is compressed in the first checkpoint", nil
	}
	return c.endChunks()
}

func (c *converter) tscInfo(t *TSC) (became, dropped string, err error) {
	became = xcstream.TypeX86TSCInfo.String()
	if c.Last {
		kept := *t
		c.tsc = &kept
		return became, "", nil
	}
	return became, "", c.state.libxc(xcstream.TypeX86TSCInfo, xcstream.TSCInfo(*t))
}

// param holds a parameter back until END.
func (c *converter) param(p *Param) (became, dropped string, err error) {
	if len(c.params) == maxPending {
		return "", "", fmt.Errorf("%w: more than %d HVM parameters", record.ErrLimit, maxPending)
	}
	pair := xcstream.HVMParam{Index: p.Index(), Value: p.Value}
	became = xcstream.TypeHVMParams.String()
	if c.Last {
		for i := range c.params {
			if c.params[i].Index == pair.Index {
				c.params[i] = pair
				return became, "", nil
			}
		}
	}
	c.params = append(c.params, pair)
	return became, "", nil
}

// endChunks writes what was held back until END.
func (c *converter) endChunks() (became, dropped string, err error) {
	if c.tsc != nil {
		if err := c.state.libxc(xcstream.TypeX86TSCInfo, xcstream.TSCInfo(*c.tsc)); err != nil {
			return "", "", err
		}
	}
	if len(c.params) == 0 {
		return "", "", nil
	}
	if c.r.Layout().Domain == xcstream.DomainPV {
		err := fmt.Errorf("%w: %s came for a PV guest", record.ErrOrder, xcstream.HVMParamName(c.params[0].Index))
		if !c.Salvage {
			return "", "", err
		}
		c.problem(c.r.wrap(err))
		return "", "the HVM parameters of a PV guest", nil
	}
	return xcstream.TypeHVMParams.String(), "", c.state.libxc(xcstream.TypeHVMParams, c.params)
}

// toolstack holds libxl's data back until the libxc stream is over.
func (c *converter) toolstack(t *Toolstack) (became, dropped string, err error) {
	if c.Format == LibXC {
		return "", "a libxc stream has no place for it", c.r.MoveTo(io.Discard)
	}
	if c.oldText {
		c.text, c.oldText = nil, false
	}
	data, err := c.r.Body(maxText)
	if err != nil {
		return "", "", err
	}
	text, err := ParseToolstack(data, c.r.Layout().Width)
	switch {
	case err != nil && c.Salvage:
		c.problem(c.r.wrap(err))
		return "", err.Error(), nil
	case err != nil:
		return "", "", err
	case len(c.text)+len(text) > maxText:
		return "", "", fmt.Errorf("%w: more than %d octets of it in all", record.ErrLimit, maxText)
	case len(text) == 0:
		return "", "it says nothing", nil
	}
	t.Text = text
	c.text = append(c.text, text...)
	return xlstream.TypeEmulatorXenstore.String(), "", nil
}
