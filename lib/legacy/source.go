package legacy

import (
	"errors"
	"fmt"
	"io"

	"xenferry/lib/record"
)

// source takes octets off an image, and knows where it is.
type source struct {
	src   *record.Peeker
	off   uint64 // of the next octet
	start uint64 // of the current item
	name  string // of the current item
	left  uint64 // octets of its payload not yet taken
	small [24]byte
	buf   []byte
}

// begin starts an item at the next octet.
func (s *source) begin(name string) { s.start, s.name = s.off, name }

// wrap gives err the offset and name of the current item.
func (s *source) wrap(err error) error {
	var e *record.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &record.Error{Offset: s.start, Record: s.name, Err: err}
}

// short is the error of a source that ended, or failed.
func (s *source) short(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: at offset %#x", record.ErrTruncated, s.off)
	}
	return s.wrap(err)
}

func (s *source) readFull(p []byte) error {
	n, err := io.ReadFull(s.src, p)
	s.off += uint64(n)
	if n < len(p) {
		return s.short(err)
	}
	return nil
}

// take reads n octets, at most len(s.small), that are good until the next call.
func (s *source) take(n int) ([]byte, error) { return s.small[:n], s.readFull(s.small[:n]) }

func (s *source) u32() (uint32, error) {
	b, err := s.take(4)
	return le.Uint32(b), err
}

func (s *source) long(w Width) (uint64, error) {
	b, err := s.take(int(w))
	return w.number(b), err
}

// moveTo moves n octets on to w.
func (s *source) moveTo(w io.Writer, n uint64) error {
	moved, err := s.src.CopyTo(w, n)
	s.off += moved
	if moved < n {
		return s.short(err)
	}
	return nil
}

// body reads n octets, whose number came off the image: memory grows with what arrives.
func (s *source) body(n uint64, limit uint64) ([]byte, error) {
	const step = 1 << 20
	if n > limit {
		return nil, s.wrap(fmt.Errorf("%w: %d octets, at most %d are taken", record.ErrLimit, n, limit))
	}
	s.buf = s.buf[:0]
	for n > 0 {
		part := int(min(n, step))
		at := len(s.buf)
		if cap(s.buf) < at+part {
			grown := make([]byte, at, max(2*cap(s.buf), at+part))
			copy(grown, s.buf)
			s.buf = grown
		}
		s.buf = s.buf[:at+part]
		if err := s.readFull(s.buf[at:]); err != nil {
			return s.buf, err
		}
		n -= uint64(part)
	}
	return s.buf, nil
}
