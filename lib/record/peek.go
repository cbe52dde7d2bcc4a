package record

import (
	"io"
	"math"
)

// Peeker is a source that lets its owner look at the first octets before it gives them out. It takes no more off its
// own source than was looked at or asked for, and passes ReadVec and CopyTo on to it.
type Peeker struct {
	src  io.Reader
	head []byte // looked at, not given out
}

// NewPeeker returns a Peeker of src.
func NewPeeker(src io.Reader) *Peeker { return &Peeker{src: src} }

// Peek returns the next n octets without giving them out: fewer, with io.ErrUnexpectedEOF, where the source ends.
func (p *Peeker) Peek(n int) ([]byte, error) {
	if have := len(p.head); have < n {
		p.head = append(p.head, make([]byte, n-have)...)
		got, err := io.ReadFull(p.src, p.head[have:])
		p.head = p.head[:have+got]
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return p.head, err
		}
	}
	return p.head[:n], nil
}

// Read gives out octets.
func (p *Peeker) Read(b []byte) (int, error) {
	if len(p.head) == 0 {
		return p.src.Read(b)
	}
	n := copy(b, p.head)
	p.head = p.head[n:]
	return n, nil
}

// ReadVec fills the buffers in order.
func (p *Peeker) ReadVec(bufs [][]byte) (int, error) {
	vec, ok := p.src.(VecReader)
	if ok && len(p.head) == 0 {
		return vec.ReadVec(bufs)
	}
	total := 0
	for _, b := range bufs {
		n, err := io.ReadFull(p, b)
		total += n
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// CopyTo moves n octets to w.
func (p *Peeker) CopyTo(w io.Writer, n uint64) (uint64, error) {
	var done uint64
	if first := min(n, uint64(len(p.head))); first > 0 {
		put, err := w.Write(p.head[:first])
		p.head = p.head[put:]
		done = uint64(put)
		if err != nil {
			return done, err
		}
	}
	if src, ok := p.src.(Copier); ok {
		more, err := src.CopyTo(w, n-done)
		return done + more, err
	}
	more, err := io.CopyN(w, p.src, int64(min(n-done, math.MaxInt64)))
	return done + uint64(more), err
}
