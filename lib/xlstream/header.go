// Package xlstream is the libxl migration stream, version 2: its header, its records, the order in which they may come,
// a Reader and a Writer; and the header that xl puts in front of it. Between two of its records stands a whole libxc
// stream, without a frame: package xcstream. It neither logs nor opens anything.
//
// Source: Xen, docs/specs/libxl-migration-stream; tools/xl/xl.h for the xl header.
package xlstream

import (
	"encoding/binary"
	"fmt"

	"xenferry/lib/record"
)

// Version is the only one there is.
const Version = 2

// HeaderSize is that of the stream's header in octets.
const HeaderSize = 16

// Ident is the stream's first 8 octets.
const Ident = "LibxlFmt"

// The options of a stream.
const (
	OptionBigEndian = 1 << 0 // records are big-endian: nobody writes that, and restore refuses it
	OptionLegacy    = 1 << 1 // made from a legacy stream
)

// Header begins a stream. Its 16 octets, big-endian whatever the records are:
//
//	 0  ident    u64  "LibxlFmt"
//	 8  version  u32  2
//	12  options  u32  bit 0 big-endian records, bit 1 converted from a legacy stream
//
// Errors: ErrValue for another ident or version; in strict mode ErrReserved for other options. Spec: Image Header.
type Header struct{ Options uint32 }

// Endian is the order of the records' numbers.
func (h Header) Endian() record.Endian { return h.Options&OptionBigEndian != 0 }

// Converted reports whether the stream was made from a legacy one. Stock restore takes note of that in its log, and of nothing
// more: its emulator records are of an unknown emulator.
func (h Header) Converted() bool { return h.Options&OptionLegacy != 0 }

// Append adds h's octets to b.
func (h Header) Append(b []byte) []byte {
	be := binary.BigEndian
	return be.AppendUint32(be.AppendUint32(append(b, Ident...), Version), h.Options)
}

// Decode sets h from its octets.
func (h *Header) Decode(c *record.Cursor) error {
	b := c.Bytes(HeaderSize)
	if b == nil {
		return c.Done()
	}
	version := binary.BigEndian.Uint32(b[8:])
	h.Options = binary.BigEndian.Uint32(b[12:])
	switch is := record.Foreign(b); {
	case string(b[:8]) != Ident && is != "":
		c.Failf("not a libxl stream: it is %s", is)
	case string(b[:8]) != Ident:
		c.Failf("ident is %q, not %q", b[:8], Ident)
	case version != Version:
		c.Failf("version %d: only %d is known", version, Version)
	case h.Options&^uint32(OptionBigEndian|OptionLegacy) != 0 && c.Strict():
		c.Fail(fmt.Errorf("%w: options %#x", record.ErrReserved, h.Options))
	}
	return c.Done()
}
