package xlstream

import (
	"fmt"
	"io"
	"math"

	"xenferry/lib/record"
)

// Writer writes a stream, but for the libxc stream in its midst, which goes to the same destination by other hands. It
// keeps nothing back: when a method returns, its octets are with the destination.
type Writer struct {
	dst    io.Writer
	endian record.Endian
	buf    []byte
}

// NewWriter returns a Writer to dst.
func NewWriter(dst io.Writer) *Writer { return &Writer{dst: dst} }

// XLHeader writes the header of xl.
func (w *Writer) XLHeader(h XLHeader) error { return w.write("xl header", h.Append(w.buf[:0])) }

// Header writes the stream's header, and has the records that follow be of its order.
func (w *Writer) Header(h Header) error {
	w.endian = h.Endian()
	return w.write("libxl header", h.Append(w.buf[:0]))
}

// Record writes a record that is not EMULATOR_CONTEXT. A nil body is an empty one.
func (w *Writer) Record(t Type, body Body) error {
	if body == nil {
		body = new(Empty)
	}
	b := w.endian.AppendRecord(w.buf[:0], uint32(t), func(b []byte) []byte { return body.Append(b, w.endian) })
	if len(b)-record.HeaderSize > MaxBody {
		return fmt.Errorf("write %v: %w: %d octets", t, record.ErrLimit, len(b)-record.HeaderSize)
	}
	return w.write(t.String(), b)
}

// EmulatorContext writes an EMULATOR_CONTEXT whose state is the next size octets of src.
func (w *Writer) EmulatorContext(h EmulatorHeader, src io.Reader, size uint64) error {
	if size > math.MaxUint32-emulatorHeaderSize {
		return fmt.Errorf("write %v: %w: %d octets", TypeEmulatorContext, record.ErrLimit, size)
	}
	frame := record.Header{Type: uint32(TypeEmulatorContext), Length: uint32(size + emulatorHeaderSize)}
	if err := w.write(TypeEmulatorContext.String(), h.Append(frame.AppendTo(w.buf[:0], w.endian), w.endian)); err != nil {
		return err
	}
	if _, err := io.CopyN(w.dst, src, int64(size)); err != nil {
		return fmt.Errorf("write %v: %w", TypeEmulatorContext, err)
	}
	return w.write(TypeEmulatorContext.String(), make([]byte, frame.Padding()))
}

func (w *Writer) write(what string, b []byte) error {
	w.buf = b[:0]
	if len(b) == 0 {
		return nil
	}
	if _, err := w.dst.Write(b); err != nil {
		return fmt.Errorf("write %s: %w", what, err)
	}
	return nil
}
