package xlstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/bits"

	"xenferry/lib/record"
)

// XLMagic is the first 32 octets of what xl writes.
const XLMagic = "Xen saved domain, xl format\n \x00 \r"

// Sizes in octets.
const (
	XLHeaderSize = 48 // without the optional data
	// MaxXLData bounds the optional data that is read. xl itself has no bound; a configuration has some kilobytes.
	MaxXLData = 16 << 20
)

const (
	xlByteOrder    = 0x01020304
	xlConfigJSON   = 1 << 0
	xlStreamV2     = 1 << 1
	xlKnownFlags   = xlConfigJSON | xlStreamV2
	xlConfigLength = 4 // octets of config_len
)

// XLHeader is what xl save and xl migrate put in front of a libxl stream, in the order of octets of the host that writes it:
//
//	 0  magic              32 octets
//	32  byteorder          u32  0x01020304: 04 03 02 01 on x86, and 01 02 03 04 where all numbers here are big-endian
//	36  mandatory flags    u32  bit 0 config is JSON, bit 1 a libxl stream follows; others are refused
//	40  optional flags     u32  0; xl ignores them
//	44  optional_data_len  u32  octets that follow
//	48  config_len         u32  with the final NUL; only if optional_data_len is not 0
//	52  config             libxl_domain_config as JSON, or an xl.cfg, and a NUL
//	then what xl ignores, up to optional_data_len
//
// It says nothing of the libxl stream's order. Errors: ErrValue for another magic, for a byteorder that is neither or, see
// record.Reader.SetEndian, big-endian, and for an unknown mandatory flag; ErrLength where config_len does not fit; ErrLimit for more than MaxXLData. In strict mode also ErrReserved for optional flags, and ErrUnusual for a config
// without its NUL or that is no JSON though the flag says so. Source: tools/xl/xl.h, xl_vmcontrol.c.
type XLHeader struct {
	Endian   record.Endian
	JSON     bool // the config is JSON, else text of xl.cfg
	StreamV2 bool // a libxl stream follows, else a legacy one
	Optional uint32
	Config   []byte // without its NUL; nil if there is none
	Tail     []byte // behind the config
}

// Append adds h's octets to b.
func (h XLHeader) Append(b []byte) []byte {
	flags := uint32(0)
	if h.JSON {
		flags |= xlConfigJSON
	}
	if h.StreamV2 {
		flags |= xlStreamV2
	}
	length := 0
	if h.Config != nil {
		length = xlConfigLength + len(h.Config) + 1 + len(h.Tail)
	}
	b = append(b, XLMagic...)
	for _, v := range [...]uint32{xlByteOrder, flags, h.Optional, uint32(length)} {
		b = h.Endian.AppendUint32(b, v)
	}
	if h.Config == nil {
		return b
	}
	b = h.Endian.AppendUint32(b, uint32(len(h.Config)+1))
	return append(append(append(b, h.Config...), 0), h.Tail...)
}

// decodeFixed sets h from the first 48 octets, under c and off r, and returns optional_data_len.
func (h *XLHeader) decodeFixed(r *record.Reader, c *record.Cursor) (dataLength uint32, err error) {
	if magic := c.Bytes(len(XLMagic)); magic != nil && string(magic) != XLMagic {
		if is := record.Foreign(magic); is != "" {
			c.Failf("not an image of xl: it is %s", is)
		}
		c.Failf("magic is %q: not an image of xl", magic)
	}
	switch order := c.U32(); order {
	case xlByteOrder:
	case bits.ReverseBytes32(xlByteOrder):
		c.SetEndian(record.BigEndian)
		if err := r.SetEndian(record.BigEndian); err != nil {
			c.Fail(err)
		}
	default:
		c.Failf("byteorder is %#x, not %#x", order, xlByteOrder)
	}
	flags := c.U32()
	if unknown := flags &^ xlKnownFlags; unknown != 0 {
		c.Failf("unknown mandatory flags %#x", unknown)
	}
	*h = XLHeader{Endian: c.Endian(), JSON: flags&xlConfigJSON != 0, StreamV2: flags&xlStreamV2 != 0, Optional: c.U32()}
	dataLength = c.U32()
	if dataLength > MaxXLData {
		c.Fail(fmt.Errorf("%w: %d octets of optional data, at most %d are allowed", record.ErrLimit, dataLength, MaxXLData))
	}
	if h.Optional != 0 && c.Strict() {
		c.Fail(fmt.Errorf("%w: optional flags %#x", record.ErrReserved, h.Optional))
	}
	return dataLength, c.Done()
}

// decodeData sets h's config and tail from the optional data.
func (h *XLHeader) decodeData(c *record.Cursor) error {
	if c.Left() == 0 {
		return nil
	}
	length := c.U32()
	if uint64(length) > uint64(c.Left()) {
		c.Fail(fmt.Errorf("%w: config of %d octets, %d are there", record.ErrLength, length, c.Left()))
		return c.Err()
	}
	config := c.Bytes(int(length))
	text, ended := bytes.CutSuffix(config, []byte{0})
	h.Config, h.Tail = append([]byte{}, text...), bytes.Clone(c.Rest())
	switch {
	case !c.Strict():
	case !ended:
		c.Fail(fmt.Errorf("%w: config without a final NUL", record.ErrUnusual))
	case h.JSON && !json.Valid(h.Config):
		c.Fail(fmt.Errorf("%w: config is not the JSON that it is said to be", record.ErrUnusual))
	}
	return c.Done()
}

// ReadXLHeader takes an xl header off r. An ErrReserved or ErrUnusual comes only after all of it was taken.
func ReadXLHeader(r *record.Reader) (*XLHeader, error) {
	var fixed [XLHeaderSize]byte
	if err := r.Raw(fixed[:], "xl header"); err != nil {
		return nil, err
	}
	h := new(XLHeader)
	length, err := h.decodeFixed(r, record.NewCursor(fixed[:], r.Mode()))
	if err = r.Wrap(err); err != nil && !record.IsTolerable(err) {
		return nil, err
	}
	data, dataErr := r.RawBody(uint64(length), "xl optional data")
	if dataErr == nil {
		c := record.NewCursor(data, r.Mode())
		c.SetEndian(h.Endian)
		dataErr = r.Wrap(h.decodeData(c))
	}
	if dataErr != nil && (err == nil || !record.IsTolerable(dataErr)) {
		err = dataErr
	}
	if err != nil && !record.IsTolerable(err) {
		return nil, err
	}
	return h, err
}
