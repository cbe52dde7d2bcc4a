package filter

import (
	"encoding/binary"
	"fmt"
	"io"

	"xenferry/lib/record"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// Pass passes a libxl stream on from src to dst, through END and not an octet more. off is the offset of its first octet, for
// errors, which are as Unwrap's. What its records say is judged only as far as finding their ends takes.
func Pass(src io.Reader, dst io.Writer, off uint64) error {
	p := passing{record.NewPeeker(src), dst}
	r := xlstream.NewReader(p, record.Lenient, off)
	return walk(r, func(xlstream.Type) error { return r.Skip() }, func(off uint64) (xcstream.DomainType, uint64, error) {
		return passLibxc(p.src, dst, off)
	})
}

// walk takes a libxl stream off r: take the body of each record, through END's, and libxc the libxc stream among them, which begins
// at off; it returns the type of its domain and where it ends.
func walk(r *xlstream.Reader, take func(xlstream.Type) error, libxc func(off uint64) (xcstream.DomainType, uint64, error)) error {
	if err := r.Header(); err != nil {
		return err
	}
	order := xlstream.NewOrder(record.Lenient, false)
	for {
		t, _, err := r.Next()
		if err != nil {
			return err
		}
		if err := order.Next(t); err != nil {
			return r.Wrap(err)
		}
		if err := take(t); err != nil || t == xlstream.TypeEnd {
			return err
		}
		if order.InLibxc() {
			domain, end, err := libxc(r.Offset())
			if err != nil {
				return err
			}
			order.LibxcEnd(domain == xcstream.DomainHVM)
			r.Passed(end - r.Offset())
		}
	}
}

// ReadXL reads the xl header in front of a libxl stream, and returns it and where that stream begins.
func ReadXL(src io.Reader) (*xlstream.XLHeader, uint64, error) {
	r := record.NewReader(src, record.Lenient, 0, 0, nil)
	h, err := xlstream.ReadXLHeader(r)
	if err == nil && !h.StreamV2 {
		err = r.Wrap(fmt.Errorf("%w: a legacy stream follows, which convert-legacy turns into one of today", record.ErrValue))
	}
	return h, r.Offset(), err
}

// passLibxc passes a libxc stream on, up to and including END. off is the offset of its first octet, and end that of the
// one behind it.
func passLibxc(src *record.Peeker, dst io.Writer, off uint64) (domain xcstream.DomainType, end uint64, err error) {
	r := xcstream.NewReader(passing{src, dst}, record.Lenient, off)
	if err := r.Headers(); err != nil {
		return 0, 0, err
	}
	order := xcstream.NewOrder(record.Lenient, r.Image.Version, r.Domain.Type)
	for {
		t, _, err := r.Next()
		if err != nil {
			return 0, 0, err
		}
		if t == xcstream.TypeCheckpoint {
			return 0, 0, r.Wrap(fmt.Errorf("%w: a stream with checkpoints has libxl records within: it is neither wrapped nor unwrapped", record.ErrOrder))
		}
		if _, err := order.Next(t); err != nil {
			return 0, 0, r.Wrap(err)
		}
		if t.IsVCPU() {
			if err := noteVCPU(r, order, t); err != nil {
				return 0, 0, err
			}
		}
		if err := r.Skip(); err != nil {
			return 0, 0, err
		}
		if t == xcstream.TypeEnd {
			return r.Domain.Type, r.Offset(), nil
		}
	}
}

// noteVCPU takes the head of a vCPU record and tells order of it.
func noteVCPU(r *xcstream.Reader, order *xcstream.Order, t xcstream.Type) error {
	var head [8]byte
	if err := r.ReadFull(head[:]); err != nil {
		return err
	}
	return r.Wrap(order.VCPU(t, binary.LittleEndian.Uint32(head[:]), int(r.Left())))
}

// passing is a source whose octets all go on to dst, whoever reads or skips them.
type passing struct {
	src *record.Peeker
	dst io.Writer
}

func (p passing) Read(b []byte) (int, error) {
	n, err := p.src.Read(b)
	if n > 0 {
		if _, err := p.dst.Write(b[:n]); err != nil {
			return n, err
		}
	}
	return n, err
}

func (p passing) CopyTo(w io.Writer, n uint64) (uint64, error) {
	if w == io.Discard {
		return p.src.CopyTo(p.dst, n)
	}
	return p.src.CopyTo(io.MultiWriter(p.dst, w), n)
}
