// Package xcstream is the libxc migration stream, versions 2 and 3: its headers, a Go type for every record, a Reader,
// a Writer, and the order in which records may come. It neither logs nor opens anything.
//
// Source: Xen, docs/specs/libxc-migration-stream.
package xcstream

import (
	"encoding/binary"
	"fmt"

	"xenferry/lib/guest"
	"xenferry/lib/record"
)

// Versions of the stream: 2 is written by Xen 4.6 to 4.13, 3 by 4.14 and later.
const (
	Version2 = 2
	Version3 = 3
)

// Sizes in octets.
const (
	ImageHeaderSize  = 24
	DomainHeaderSize = 16
	// MaxRecord is the largest body that Xen 4.10 and later read (8 MiB before).
	MaxRecord = 128 << 20
	// MaxBatch is how many pages a saver puts into one PAGE_DATA: all that one getpageframeinfo3 takes. Readers take more.
	MaxBatch = 1024
)

const (
	marker = 0xFFFFFFFFFFFFFFFF
	ident  = 0x58454E46 // "XENF"
)

// ImageHeader begins a stream. Its 24 octets, big-endian all of them:
//
//	 0  marker      u64  all ones
//	 8  id          u32  0x58454E46, "XENF"
//	12  version     u32  2 or 3
//	16  options     u16  bit 0: the records are big-endian (nobody writes that, and we refuse it)
//	18  (reserved)  u16, u32
//
// Errors: ErrValue for another marker, id or version or for big-endian records; in strict mode ErrReserved.
// Spec: Image Header.
type ImageHeader struct {
	Version uint32
	Options uint16
}

// Append adds h's octets to b.
func (h ImageHeader) Append(b []byte) []byte {
	be := binary.BigEndian
	b = be.AppendUint64(b, marker)
	b = be.AppendUint32(b, ident)
	b = be.AppendUint32(b, h.Version)
	b = be.AppendUint16(b, h.Options)
	return append(b, 0, 0, 0, 0, 0, 0)
}

// Decode sets h from its octets.
func (h *ImageHeader) Decode(c *record.Cursor) error {
	be := binary.BigEndian
	b := c.Bytes(18)
	if b == nil {
		return c.Done()
	}
	h.Version, h.Options = be.Uint32(b[12:]), be.Uint16(b[16:])
	switch is := record.Foreign(b); {
	case be.Uint64(b) != marker && is != "":
		c.Failf("not a libxc stream: it is %s", is)
	case be.Uint64(b) != marker:
		c.Failf("marker is %#x, not all ones: not a libxc stream (one of Xen 4.5 and older has no marker)", be.Uint64(b))
	case be.Uint32(b[8:]) != ident:
		c.Failf("id is %#x, not %#x", be.Uint32(b[8:]), uint32(ident))
	case h.Version != Version2 && h.Version != Version3:
		c.Failf("version %d: only 2 and 3 are known", h.Version)
	case h.Options&1 != 0:
		c.Failf("big-endian records are not supported")
	case h.Options != 0 && c.Strict():
		c.Fail(fmt.Errorf("%w: options %#x", record.ErrReserved, h.Options))
	}
	c.Reserved(6)
	return c.Done()
}

// DomainType says what a stream's domain is; PVH is HVM here.
type DomainType uint32

// The domain types that savers write.
const (
	DomainPV  DomainType = 1
	DomainHVM DomainType = 2
)

// String is the type as the specification names it.
func (t DomainType) String() string {
	switch t {
	case DomainPV:
		return "x86 PV"
	case DomainHVM:
		return "x86 HVM"
	}
	return fmt.Sprintf("domain type %d", uint32(t))
}

// DomainHeader follows the image header. Its 16 octets, little-endian:
//
//	 0  type        u32  1 x86 PV, 2 x86 HVM
//	 4  page_shift  u16  12
//	 6  (reserved)  u16
//	 8  xen_major   u32  the saver's Xen, 0 when converted from a legacy image
//	12  xen_minor   u32
//
// Errors: ErrValue for another type or page_shift; in strict mode ErrReserved. Spec: Domain Header.
type DomainHeader struct {
	Type DomainType
	Xen  guest.Release
}

// Append adds h's octets to b.
func (h DomainHeader) Append(b []byte) []byte {
	b = le.AppendUint32(b, uint32(h.Type))
	b = le.AppendUint16(b, guest.PageShift)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, h.Xen.Major)
	return le.AppendUint32(b, h.Xen.Minor)
}

// Decode sets h from its octets.
func (h *DomainHeader) Decode(c *record.Cursor) error {
	h.Type = DomainType(c.U32())
	if h.Type != DomainPV && h.Type != DomainHVM {
		c.Failf("%v: only 1 (x86 PV) and 2 (x86 HVM) are known", h.Type)
	}
	if shift := c.U16(); shift != guest.PageShift {
		c.Failf("page_shift is %d, not %d", shift, guest.PageShift)
	}
	c.Reserved(2)
	h.Xen = guest.Release{Major: c.U32(), Minor: c.U32()}
	return c.Done()
}

var le = binary.LittleEndian
