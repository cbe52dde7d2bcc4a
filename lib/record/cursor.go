package record

import (
	"fmt"
)

// Mode says how much a decoder looks at: Strict refuses what no stock saver writes, Lenient takes what stock
// restore takes.
type Mode bool

// The modes.
const (
	Lenient Mode = false
	Strict  Mode = true
)

// Cursor takes the fields of a body one after the other. It keeps its first error and returns zeros from then on, so
// that a decoder reads like the table of its record.
type Cursor struct {
	b      []byte
	off    int
	mode   Mode
	endian Endian
	err    error
}

// NewCursor returns a Cursor at the start of body. Numbers are little-endian.
func NewCursor(body []byte, mode Mode) *Cursor { return &Cursor{b: body, mode: mode} }

// SetEndian has the numbers from here on be of order e.
func (c *Cursor) SetEndian(e Endian) { c.endian = e }

// Endian is the order of the numbers.
func (c *Cursor) Endian() Endian { return c.endian }

// Left is how many octets are left: what a count off the wire is checked against before it sizes anything.
func (c *Cursor) Left() int { return len(c.b) - c.off }

// Strict reports whether the cursor is in strict mode.
func (c *Cursor) Strict() bool { return c.mode == Strict }

// Bytes takes the next n octets. They are the body's own.
func (c *Cursor) Bytes(n int) []byte {
	if c.err == nil && (n < 0 || n > c.Left()) {
		c.err = fmt.Errorf("%w: %d octets, field at %d needs %d", ErrLength, len(c.b), c.off, n)
	}
	if c.err != nil {
		return nil
	}
	c.off += n
	return c.b[c.off-n : c.off : c.off]
}

// U8 takes an octet.
func (c *Cursor) U8() uint8 {
	if b := c.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 takes a 16-bit number.
func (c *Cursor) U16() uint16 {
	if b := c.Bytes(2); b != nil {
		return c.endian.Uint16(b)
	}
	return 0
}

// U32 takes a 32-bit number.
func (c *Cursor) U32() uint32 {
	if b := c.Bytes(4); b != nil {
		return c.endian.Uint32(b)
	}
	return 0
}

// U64 takes a 64-bit number.
func (c *Cursor) U64() uint64 {
	if b := c.Bytes(8); b != nil {
		return c.endian.Uint64(b)
	}
	return 0
}

// Rest takes all octets that are left.
func (c *Cursor) Rest() []byte { return c.Bytes(c.Left()) }

// Reserved takes n octets that must be zero in strict mode.
func (c *Cursor) Reserved(n int) {
	at := c.off
	for _, v := range c.Bytes(n) {
		if v != 0 && c.mode == Strict {
			c.Fail(fmt.Errorf("%w: %d octets at %d", ErrReserved, n, at))
			return
		}
	}
}

// Fail makes err the cursor's error if it has none yet.
func (c *Cursor) Fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// Failf is Fail with an ErrValue made of the arguments.
func (c *Cursor) Failf(format string, args ...any) {
	c.Fail(fmt.Errorf("%w: %s", ErrValue, fmt.Sprintf(format, args...)))
}

// Err is the first error so far.
func (c *Cursor) Err() error { return c.err }

// Done is the end of a decoder: the first error, or ErrLength if octets are left over.
func (c *Cursor) Done() error {
	if c.err == nil && c.Left() != 0 {
		c.err = fmt.Errorf("%w: %d octets, %d are fields", ErrLength, len(c.b), c.off)
	}
	return c.err
}

// Decoder is a body, or a header, that can be decoded.
type Decoder interface {
	// Decode sets the value from the octets under c and keeps no reference to them.
	Decode(c *Cursor) error
}
