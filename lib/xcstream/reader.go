package xcstream

import (
	"fmt"
	"io"

	"xenferry/lib/guest"
	"xenferry/lib/record"
)

// Reader reads a stream: Headers first, then records by Next until TypeEnd.
type Reader struct {
	*record.Reader
	Image  ImageHeader
	Domain DomainHeader

	page  PageDataHeader
	chunk [8192]byte // of a PAGE_DATA's entries
}

// NewReader returns a Reader of src, of which off octets were read before.
func NewReader(src io.Reader, mode record.Mode, off uint64) *Reader {
	name := func(t uint32) string { return Type(t).String() }
	return &Reader{Reader: record.NewReader(src, mode, MaxRecord, off, name)}
}

// Headers reads the image header and the domain header. An error of the kind ErrReserved comes only after both were
// taken and set, so that the caller can go on in spite of it.
func (r *Reader) Headers() error {
	var raw [ImageHeaderSize + DomainHeaderSize]byte
	if err := r.Raw(raw[:ImageHeaderSize], "image header"); err != nil {
		return err
	}
	err := r.Tolerate(&r.Image, raw[:ImageHeaderSize])
	if err != nil && !record.IsTolerable(err) {
		return err
	}
	if e := r.Raw(raw[ImageHeaderSize:], "domain header"); e != nil {
		return e
	}
	if e := r.Tolerate(&r.Domain, raw[ImageHeaderSize:]); e != nil && (err == nil || !record.IsTolerable(e)) {
		return e
	}
	return err
}

// Next reads a record's header.
func (r *Reader) Next() (Type, uint32, error) {
	h, err := r.Reader.Next()
	return Type(h.Type), h.Length, err
}

// PageData reads a PAGE_DATA up to its pages, which the caller takes with ReadVec, ReadFull or Skip, and then End.
// The result is the Reader's, good until the next call. An ErrReserved leaves it set. Memory grows with the entries that
// arrive, not with what the count claims.
func (r *Reader) PageData() (*PageDataHeader, error) {
	length := r.Left()
	if err := r.ReadFull(r.chunk[:8]); err != nil {
		return nil, err
	}
	count, reserved := uint64(le.Uint32(r.chunk[:])), le.Uint32(r.chunk[4:])
	switch {
	case count == 0:
		return nil, r.Wrap(fmt.Errorf("%w: count is 0", record.ErrValue))
	case count*8 > r.Left():
		return nil, r.Wrap(fmt.Errorf("%w: %d octets cannot hold %d entries", record.ErrLength, length, count))
	}
	r.page = PageDataHeader{Entries: r.page.Entries[:0]}
	var tolerable error
	if reserved != 0 && r.Mode() == record.Strict {
		tolerable = fmt.Errorf("%w: 4 octets at 4", record.ErrReserved)
	}
	for left := count * 8; left > 0; {
		part := r.chunk[:min(left, uint64(len(r.chunk)))]
		left -= uint64(len(part))
		if err := r.ReadFull(part); err != nil {
			return nil, err
		}
		switch err := r.page.add(part, r.Mode()); {
		case record.IsTolerable(err) && tolerable == nil:
			tolerable = err
		case err != nil && !record.IsTolerable(err):
			return nil, r.Wrap(err)
		}
	}
	if want := PageDataSize(int(count), r.page.Pages); length != want {
		return nil, r.Wrap(fmt.Errorf("%w: %d octets, %d entries with %d pages of %d need %d",
			record.ErrLength, length, count, r.page.Pages, guest.PageSize, want))
	}
	return &r.page, r.Wrap(tolerable)
}

// Decoder is a body that can be decoded: Reader.Decode sets one from the current record.
type Decoder = record.Decoder
