package xcstream

import (
	"fmt"
	"io"
	"slices"

	"xenferry/lib/guest"
	"xenferry/lib/record"
)

// VecWriter is a destination that takes several buffers in order, with few calls of writev(2): all of them, or an error.
// The buffers' slice stays as it is.
type VecWriter interface {
	WriteVec(bufs [][]byte) (int, error)
}

// Writer writes a stream. It keeps nothing back: when a method returns, its octets are with the destination.
type Writer struct {
	dst  io.Writer
	off  uint64
	buf  []byte
	bufs [][]byte
}

// NewWriter returns a Writer to dst.
func NewWriter(dst io.Writer) *Writer { return &Writer{dst: dst} }

// Offset is how many octets were written.
func (w *Writer) Offset() uint64 { return w.off }

// Headers writes the image header and the domain header.
func (w *Writer) Headers(image ImageHeader, domain DomainHeader) error {
	return w.write("headers", domain.Append(image.Append(w.buf[:0])))
}

// Record writes one record that is not PAGE_DATA.
func (w *Writer) Record(rec Record) error {
	body := rec.Body
	if body == nil {
		body = Raw(nil)
	}
	b := record.AppendRecord(w.buf[:0], uint32(rec.Type), body.Append)
	if len(b)-record.HeaderSize > MaxRecord {
		return fmt.Errorf("write %v: %w: %d octets", rec.Type, record.ErrLimit, len(b)-record.HeaderSize)
	}
	return w.write(rec.Type.String(), b)
}

// PageData writes a PAGE_DATA of entries, at most MaxBatch where stock Xen reads it, with pages in the order of the
// entries that have data. The pages are read while it runs and not copied where dst is a VecWriter.
func (w *Writer) PageData(entries []PageEntry, pages [][]byte) error {
	if err := checkBatch(entries, pages); err != nil {
		return fmt.Errorf("write %v: %w", TypePageData, err)
	}
	size := PageDataSize(len(entries), len(pages))
	b := record.Header{Type: uint32(TypePageData), Length: uint32(size)}.Append(w.buf[:0])
	b = le.AppendUint32(b, uint32(len(entries)))
	b = le.AppendUint32(b, 0)
	head := len(b)
	b = slices.Grow(b, 8*len(entries))[:head+8*len(entries)]
	for i, e := range entries {
		le.PutUint64(b[head+8*i:], uint64(e))
	}
	w.bufs = append(append(w.bufs[:0], b), pages...)
	w.buf = b[:0]
	return w.writeVec(TypePageData.String(), w.bufs)
}

// checkBatch holds the pages against their entries: what would be a broken stream is refused before an octet is out.
func checkBatch(entries []PageEntry, pages [][]byte) error {
	data := 0
	for _, e := range entries {
		if e.Type().HasData() {
			data++
		}
	}
	switch size := PageDataSize(len(entries), data); {
	case len(entries) == 0:
		return fmt.Errorf("%w: no entries", record.ErrValue)
	case data != len(pages):
		return fmt.Errorf("%w: %d pages for %d entries with data", record.ErrLength, len(pages), data)
	case size > MaxRecord:
		return fmt.Errorf("%w: %d octets", record.ErrLimit, size)
	}
	for _, p := range pages {
		if len(p) != guest.PageSize {
			return fmt.Errorf("%w: a page of %d octets", record.ErrLength, len(p))
		}
	}
	return nil
}

func (w *Writer) write(what string, b []byte) error {
	w.buf = b[:0]
	n, err := w.dst.Write(b)
	return w.wrote(what, n, err)
}

func (w *Writer) writeVec(what string, bufs [][]byte) error {
	if vec, ok := w.dst.(VecWriter); ok {
		n, err := vec.WriteVec(bufs)
		return w.wrote(what, n, err)
	}
	done := 0
	for _, b := range bufs {
		n, err := w.dst.Write(b)
		done += n
		if err != nil {
			return w.wrote(what, done, err)
		}
	}
	return w.wrote(what, done, nil)
}

// wrote accounts for n octets written of what.
func (w *Writer) wrote(what string, n int, err error) error {
	start := w.off
	w.off += uint64(n)
	if err != nil {
		return fmt.Errorf("write %s at offset %#x: %w", what, start, err)
	}
	return nil
}
