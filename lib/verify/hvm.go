package verify

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// contextBlob is the body of an HVM_CONTEXT.
type contextBlob []byte

// Decode sets b to a copy of the body under c.
func (b *contextBlob) Decode(c *record.Cursor) error {
	*b = bytes.Clone(c.Rest())
	return c.Done()
}

// hvmContext checks the framing of an HVM_CONTEXT. Its entries are Xen's affair: what no known release writes is only unusual.
func (x *libxc) hvmContext(blob *contextBlob) error {
	entries, err := xcstream.ParseHVMContext(*blob)
	if err != nil {
		return err
	}
	table := &HVMContext{Octets: len(*blob)}
	for _, e := range entries {
		table.add(&e)
	}
	x.img.HVMContext = table
	err = xcstream.CheckHVMContext(entries)
	if err != nil && !errors.Is(err, record.ErrUnusual) {
		err = fmt.Errorf("%w: %v", record.ErrUnusual, err)
	}
	return err
}

// add counts an entry. There is a row for every code that exists, and some for others.
func (t *HVMContext) add(e *xcstream.HVMEntry) {
	i := slices.IndexFunc(t.Entries, func(row HVMEntries) bool { return row.Code == uint16(e.Code) })
	if i < 0 {
		if len(t.Entries) == maxRecordTypes {
			return
		}
		t.Entries = append(t.Entries, HVMEntries{Code: uint16(e.Code), Name: e.Code.String()})
		i = len(t.Entries) - 1
	}
	t.Entries[i].Count++
	t.Entries[i].Octets += len(e.Data)
}

// maxParams is how many HVM parameters the report lists; Xen has less than 40.
const maxParams = 256

func (x *libxc) hvmParams(params *xcstream.HVMParams) error {
	if len(*params) == 0 {
		x.v.warn(x.r.Wrap(errors.New("no parameters (erratum 1: savers of Xen 4.6 to 4.8 wrote that)")))
	}
	for _, p := range *params {
		i := slices.IndexFunc(x.img.HVMParams, func(have HVMParam) bool { return have.Index == p.Index })
		switch {
		case i >= 0:
			x.img.HVMParams[i].Value = p.Value
		case len(x.img.HVMParams) < maxParams:
			x.img.HVMParams = append(x.img.HVMParams, HVMParam{p.Index, xcstream.HVMParamName(p.Index), p.Value})
		}
	}
	return nil
}
