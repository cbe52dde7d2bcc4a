package legacy

import (
	"fmt"
	"io"

	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// sink is where records go. It keeps its first error.
type sink struct {
	w   io.Writer
	off uint64
	buf []byte
}

// write writes octets as they are.
func (s *sink) write(b []byte) error {
	n, err := s.w.Write(b)
	s.off += uint64(n)
	if err != nil {
		return fmt.Errorf("write the output at offset %#x: %w", s.off, err)
	}
	return nil
}

// record writes a record of either layer.
func (s *sink) record(typ uint32, body func([]byte) []byte) error {
	s.buf = record.AppendRecord(s.buf[:0], typ, body)
	return s.write(s.buf)
}

func (s *sink) libxc(t xcstream.Type, body xcstream.Body) error {
	return s.record(uint32(t), body.Append)
}

// payload writes a record whose body begins with head and goes on with the payload of r's item.
func (s *sink) payload(typ uint32, head []byte, r *Reader) error {
	size := r.Left()
	frame := record.Header{Type: typ, Length: uint32(uint64(len(head)) + size)}
	if uint64(frame.Length) != uint64(len(head))+size {
		return r.wrap(fmt.Errorf("%w: %d octets do not fit into a record", record.ErrLimit, size))
	}
	s.buf = append(frame.Append(s.buf[:0]), head...)
	if err := s.write(s.buf); err != nil {
		return err
	}
	if err := s.move(r); err != nil {
		return err
	}
	if frame.Padding() == 0 {
		return nil
	}
	var zeros [8]byte
	return s.write(zeros[:frame.Padding()])
}

// move passes the payload of r's item on.
func (s *sink) move(r *Reader) error {
	before := r.Offset()
	err := r.MoveTo(s.w)
	s.off += r.Offset() - before
	return err
}
