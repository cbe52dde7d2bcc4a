package xlstream

import (
	"cmp"
	"fmt"
	"io"
	"math"

	"xenferry/lib/record"
)

// Reader reads a stream: Header first, then records by Next until TypeEnd. After TypeLibxcContext the libxc stream is
// read from the same source by somebody else, who tells Passed how long it was.
type Reader struct {
	*record.Reader
	Head Header
}

// MaxBody bounds the body of every record but EMULATOR_CONTEXT, which is moved in parts and may be as large as its header
// can say. libxl has no bound; some kilobytes are usual.
const MaxBody = 16 << 20

// NewReader returns a Reader of src, of which off octets were read before.
func NewReader(src io.Reader, mode record.Mode, off uint64) *Reader {
	name := func(t uint32) string { return Type(t).String() }
	return &Reader{Reader: record.NewReader(src, mode, math.MaxUint32, off, name)}
}

// Header reads the stream's header, and has what follows be of its order: see record.Reader.SetEndian. An ErrReserved leaves it
// taken and set.
func (r *Reader) Header() error {
	var raw [HeaderSize]byte
	if err := r.Raw(raw[:], "libxl header"); err != nil {
		return err
	}
	err := r.Tolerate(&r.Head, raw[:])
	if err == nil || record.IsTolerable(err) {
		err = cmp.Or(r.SetEndian(r.Head.Endian()), err)
	}
	return err
}

// Next reads a record's header.
func (r *Reader) Next() (Type, uint32, error) {
	h, err := r.Reader.Next()
	t := Type(h.Type)
	if err == nil && t != TypeEmulatorContext && h.Length > MaxBody {
		err = r.Wrap(fmt.Errorf("%w: %d octets of body, at most %d are allowed", record.ErrLimit, h.Length, MaxBody))
	}
	return t, h.Length, err
}

// EmulatorContext reads an EMULATOR_CONTEXT up to the emulator's state: Left says how long that is, and the caller takes
// it by Copy, Skip, or ReadFull and End. An ErrUnusual leaves the result set.
func (r *Reader) EmulatorContext() (h EmulatorHeader, err error) {
	var raw [emulatorHeaderSize]byte
	if err := r.ReadFull(raw[:]); err != nil {
		return h, err
	}
	err = r.Tolerate(&h, raw[:])
	return h, err
}
