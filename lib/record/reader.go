package record

import (
	"errors"
	"fmt"
	"io"
)

// VecReader is a source that fills several buffers in order, with few calls of readv(2). It returns how many octets
// came: all, or fewer with an error, which is io.EOF where the source ends. The buffers' slice stays as it is.
type VecReader interface {
	ReadVec(bufs [][]byte) (int, error)
}

// Copier is a source that moves n octets on to w without showing them, as splice(2) does. It returns how many went:
// all, or fewer with an error, which is io.EOF where the source ends.
type Copier interface {
	CopyTo(w io.Writer, n uint64) (uint64, error)
}

// Reader takes records off a stream, and not an octet more than asked for, as another process may read on.
// After Next, the body is taken whole by Body or Skip, or in parts by ReadFull, ReadVec and Copy and closed by End.
type Reader struct {
	src    io.Reader
	name   func(typ uint32) string
	limit  uint32
	mode   Mode
	endian Endian
	either bool // endian may be any

	off   uint64 // next octet
	start uint64 // of the current record
	cur   string // its name
	left  uint64 // octets of its body not yet taken
	pad   int    // octets of padding not yet taken
	h     Header
	buf   []byte
	small [HeaderSize]byte
}

// NewReader returns a Reader of src for records of at most limit octets of body; name says how errors call a type.
// off is how many octets of the stream were read before.
func NewReader(src io.Reader, mode Mode, limit uint32, off uint64, name func(typ uint32) string) *Reader {
	return &Reader{src: src, name: name, limit: limit, mode: mode, off: off, start: off}
}

// Offset is that of the next octet of the stream.
func (r *Reader) Offset() uint64 { return r.off }

// Passed takes note that somebody else took n octets off the stream: another format's reader, within this one's.
func (r *Reader) Passed(n uint64) { r.off += n }

// Start is the offset of the current record's header.
func (r *Reader) Start() uint64 { return r.start }

// Mode is the one given to NewReader.
func (r *Reader) Mode() Mode { return r.mode }

// TakeAnyEndian has SetEndian take either order.
func (r *Reader) TakeAnyEndian() { r.either = true }

// SetEndian has the numbers of the records from here on be of order e, as the stream's header says. Big-endian ones are an
// ErrValue, as restore refuses them, unless TakeAnyEndian was called.
func (r *Reader) SetEndian(e Endian) error {
	if e == BigEndian && !r.either {
		return r.Wrap(fmt.Errorf("%w: big-endian numbers are not supported: nobody restores that", ErrValue))
	}
	r.endian = e
	return nil
}

// Endian is the order of the numbers in records.
func (r *Reader) Endian() Endian { return r.endian }

// Left is how much of the current body is not yet taken.
func (r *Reader) Left() uint64 { return r.left }

// Wrap gives err the offset and name of the current record, unless it has one.
func (r *Reader) Wrap(err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &Error{Offset: r.start, Record: r.cur, Err: err}
}

// Raw fills p with octets that belong to no record, such as a stream's header. What names them in errors.
func (r *Reader) Raw(p []byte, what string) error {
	r.start, r.cur, r.left, r.pad = r.off, what, uint64(len(p)), 0
	return r.ReadFull(p)
}

// Next reads the header of the next record. At the end of the source it returns ErrTruncated: only a format knows
// its last record.
func (r *Reader) Next() (Header, error) {
	r.start, r.cur, r.left, r.pad = r.off, "record header", HeaderSize, 0
	if err := r.ReadFull(r.small[:]); err != nil {
		return Header{}, err
	}
	r.h = Header{Type: r.endian.Uint32(r.small[:]), Length: r.endian.Uint32(r.small[4:])}
	r.cur, r.left, r.pad = r.name(r.h.Type), uint64(r.h.Length), r.h.Padding()
	if r.h.Length > r.limit {
		return r.h, r.Wrap(fmt.Errorf("%w: %d octets of body, at most %d are allowed", ErrLimit, r.h.Length, r.limit))
	}
	return r.h, nil
}

// Body takes the whole body and its padding. The slice is the Reader's, good until its next call. Memory grows with
// what arrives, not with what the header claims.
func (r *Reader) Body() ([]byte, error) {
	if err := r.fill(); err != nil {
		return nil, err
	}
	return r.buf, r.End()
}

// Decode takes the current record's body and sets v from it. A tolerable error leaves v set and the record taken.
func (r *Reader) Decode(v Decoder) error {
	body, err := r.Body()
	if err != nil && !IsTolerable(err) {
		return err
	}
	if e := r.Tolerate(v, body); e != nil && (err == nil || !IsTolerable(e)) {
		err = e
	}
	return err
}

// Tolerate decodes b, of the current record or header, into v. After a tolerable error it decodes again without looking at what
// is tolerable, so that v is set, and returns that error unless there is a worse one.
func (r *Reader) Tolerate(v Decoder, b []byte) error {
	decode := func(mode Mode) error {
		c := NewCursor(b, mode)
		c.SetEndian(r.endian)
		return r.Wrap(v.Decode(c))
	}
	err := decode(r.mode)
	if IsTolerable(err) {
		if e := decode(Lenient); e != nil {
			return e
		}
	}
	return err
}

// RawBody is Raw for n octets whose number came off the stream: as with Body, memory grows with what arrives, and the
// slice is the Reader's.
func (r *Reader) RawBody(n uint64, what string) ([]byte, error) {
	r.start, r.cur, r.left, r.pad = r.off, what, n, 0
	err := r.fill()
	return r.buf, err
}

// fill takes what is left of the body into buf.
func (r *Reader) fill() error {
	const step = 1 << 20
	r.buf = r.buf[:0]
	for r.left > 0 {
		n := int(min(r.left, step))
		if cap(r.buf)-len(r.buf) < n {
			grown := make([]byte, len(r.buf), max(2*cap(r.buf), len(r.buf)+n))
			copy(grown, r.buf)
			r.buf = grown
		}
		r.buf = r.buf[:len(r.buf)+n]
		if err := r.ReadFull(r.buf[len(r.buf)-n:]); err != nil {
			return err
		}
	}
	return nil
}

// ReadFull fills p from the current body.
func (r *Reader) ReadFull(p []byte) error {
	if uint64(len(p)) > r.left {
		return r.Wrap(fmt.Errorf("%w: %d octets left, %d are needed", ErrLength, r.left, len(p)))
	}
	n, err := io.ReadFull(r.src, p)
	return r.took(n, len(p), err)
}

// ReadVec fills the buffers in order from the current body, by few calls where the source is a VecReader.
func (r *Reader) ReadVec(bufs [][]byte) error {
	vec, ok := r.src.(VecReader)
	if !ok {
		for _, b := range bufs {
			if err := r.ReadFull(b); err != nil {
				return err
			}
		}
		return nil
	}
	want := 0
	for _, b := range bufs {
		want += len(b)
	}
	if uint64(want) > r.left {
		return r.Wrap(fmt.Errorf("%w: %d octets left, %d are needed", ErrLength, r.left, want))
	}
	n, err := vec.ReadVec(bufs)
	return r.took(n, want, err)
}

// took accounts for n octets that arrived of want.
func (r *Reader) took(n, want int, err error) error {
	r.off += uint64(n)
	r.left -= uint64(n)
	if n == want {
		return nil
	}
	return r.short(err)
}

// short is the error of a source that gave less than asked for.
func (r *Reader) short(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: at offset %#x", ErrTruncated, r.off)
	}
	return r.Wrap(err)
}

// Skip takes what is left of the body, and the padding.
func (r *Reader) Skip() error {
	if err := r.Copy(io.Discard); err != nil {
		return err
	}
	return r.End()
}

// copyStep is how much Copy takes at a time, in octets.
const copyStep = 64 << 10

// Copy writes what is left of the body to w. Where the source is a Copier, that moves it. The padding stays for End.
func (r *Reader) Copy(w io.Writer) error {
	if src, ok := r.src.(Copier); ok && r.left > 0 {
		want := r.left
		n, err := src.CopyTo(w, want)
		r.off += n
		r.left -= n
		if n != want {
			return r.short(err)
		}
	}
	if cap(r.buf) < copyStep {
		r.buf = make([]byte, copyStep)
	}
	for r.left > 0 {
		part := r.buf[:min(r.left, uint64(cap(r.buf)))]
		if err := r.ReadFull(part); err != nil {
			return err
		}
		if _, err := w.Write(part); err != nil {
			return r.Wrap(err)
		}
	}
	return nil
}

// End takes the padding of a body that was taken in parts. Octets of it that are left are an error.
func (r *Reader) End() error {
	if r.left != 0 {
		return r.Wrap(fmt.Errorf("%w: %d octets, %d are fields", ErrLength, r.h.Length, uint64(r.h.Length)-r.left))
	}
	pad := r.small[:r.pad]
	r.left, r.pad = uint64(len(pad)), 0
	if err := r.ReadFull(pad); err != nil {
		return err
	}
	for _, v := range pad {
		if v != 0 && r.mode == Strict {
			return r.Wrap(fmt.Errorf("%w: % x", ErrPadding, pad))
		}
	}
	return nil
}
