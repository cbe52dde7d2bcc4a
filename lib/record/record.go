// Package record is the framing that libxc and libxl streams share: an 8-octet header, a body, and zeros up to the
// next multiple of 8. A Reader takes one record after the other and never an octet more; a Cursor decodes a body. Numbers
// are little-endian, unless the stream's own header says otherwise.
//
//	0  type         u32  bit 31 set: whoever does not know the record may skip it
//	4  body_length  u32  octets of body, without header and padding
//	8  body, then 0 to 7 octets of zero
//
// Source: docs/specs/libxc-migration-stream, Records; docs/specs/libxl-migration-stream, Records.
package record

import (
	"errors"
	"fmt"
)

// The kinds of error that reading a stream finds. Each error of this package matches one of them, or is the source's own.
var (
	// ErrLength: a body is shorter or longer than its fields.
	ErrLength = errors.New("wrong body length")
	// ErrValue: a field holds what it must not.
	ErrValue = errors.New("bad value")
	// ErrReserved: a reserved field is not zero. Stock Xen's restore does not look, and its saver never writes that.
	ErrReserved = errors.New("reserved field is not zero")
	// ErrPadding: the octets after the body are not zero. Likewise.
	ErrPadding = errors.New("padding is not zero")
	// ErrLimit: a record is larger than the format allows.
	ErrLimit = errors.New("record too large")
	// ErrTruncated: the stream ends where more must follow.
	ErrTruncated = errors.New("stream ends too early")
	// ErrUnknown: a record of a type that nobody knows and that may not be skipped.
	ErrUnknown = errors.New("unknown mandatory record")
	// ErrOrder: a record may not come in this stream, or not at this place in it.
	ErrOrder = errors.New("not allowed here")
	// ErrMissing: the stream, or a round of it, ends without a record that it must have.
	ErrMissing = errors.New("missing")
	// ErrUnusual: stock restore takes it and no stock saver writes it.
	ErrUnusual = errors.New("unusual")
)

// HeaderSize is the size of a record header in octets.
const HeaderSize = 8

// Optional is the bit of a type that lets a reader skip a record that it does not know.
const Optional = 1 << 31

// Header is a record's header.
type Header struct {
	Type   uint32
	Length uint32 // of the body
}

// Padding is how many octets follow the body: 0 to 7.
func (h Header) Padding() int { return int(-h.Length & 7) }

// Padded is the length of body and padding.
func (h Header) Padded() uint64 { return (uint64(h.Length) + 7) &^ 7 }

// Append adds the header's octets to b, little-endian.
func (h Header) Append(b []byte) []byte { return h.AppendTo(b, LittleEndian) }

// AppendTo is Append for a stream of order e.
func (h Header) AppendTo(b []byte, e Endian) []byte {
	return e.AppendUint32(e.AppendUint32(b, h.Type), h.Length)
}

// AppendRecord adds a whole record to b: header, the body that body appends, padding. The header is little-endian.
func AppendRecord(b []byte, typ uint32, body func([]byte) []byte) []byte {
	return LittleEndian.AppendRecord(b, typ, body)
}

// AppendRecord is the function of that name for a stream of order e. The body's numbers are body's concern.
func (e Endian) AppendRecord(b []byte, typ uint32, body func([]byte) []byte) []byte {
	start := len(b)
	b = body(append(b, make([]byte, HeaderSize)...))
	h := Header{Type: typ, Length: uint32(len(b) - start - HeaderSize)}
	h.AppendTo(b[:start], e) // in its place
	return append(b, make([]byte, h.Padding())...)
}

// Error says where in a stream something was wrong.
type Error struct {
	Offset uint64 // of the record or header, from the stream's first octet
	Record string // its name; empty for none
	Err    error
}

func (e *Error) Error() string {
	if e.Record == "" {
		return fmt.Sprintf("offset %#x: %v", e.Offset, e.Err)
	}
	return fmt.Sprintf("offset %#x: %s: %v", e.Offset, e.Record, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// IsTolerable reports whether err is about what stock restore tolerates and no stock saver writes: an error of strict
// mode that leaves the record taken and decoded, so that a verifier can make a warning of it and go on.
func IsTolerable(err error) bool {
	return errors.Is(err, ErrReserved) || errors.Is(err, ErrPadding) || errors.Is(err, ErrUnusual)
}

// IsInvalid reports whether err is about what a stream holds, and not about reading it.
func IsInvalid(err error) bool {
	for _, kind := range []error{ErrLength, ErrValue, ErrLimit, ErrTruncated, ErrUnknown, ErrOrder, ErrMissing} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return IsTolerable(err)
}
