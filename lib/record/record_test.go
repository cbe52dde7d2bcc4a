package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func name(t uint32) string { return fmt.Sprintf("TYPE_%d", t) }

// rec is a record's octets.
func rec(t uint32, body string) []byte {
	return AppendRecord(nil, t, func(b []byte) []byte { return append(b, body...) })
}

func reader(in []byte, mode Mode) *Reader {
	return NewReader(bytes.NewReader(in), mode, 100, 0, name)
}

func TestCursor(t *testing.T) {
	c := NewCursor([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 0, 16, 17}, Strict)
	if c.U8() != 1 || c.U16() != 0x0302 || c.U32() != 0x07060504 || c.U64() != 0x0f0e0d0c0b0a0908 {
		t.Error("numbers")
	}
	if c.Reserved(2); c.Left() != 2 || !bytes.Equal(c.Rest(), []byte{16, 17}) || c.Done() != nil {
		t.Error("rest", c.Err())
	}
	for _, row := range []struct {
		name string
		take func(c *Cursor)
		want error
		text string
	}{
		{"short", func(c *Cursor) { c.U64() }, ErrLength, "4 octets, field at 0 needs 8"},
		{"left over", func(c *Cursor) { c.U16() }, ErrLength, "4 octets, 2 are fields"},
		{"reserved", func(c *Cursor) { c.U16(); c.Reserved(2) }, ErrReserved, "2 octets at 2"},
		{"the first error counts", func(c *Cursor) { c.Failf("x is %d", 3); c.U64(); c.Fail(io.EOF) }, ErrValue, "x is 3"},
		{"negative", func(c *Cursor) { c.Bytes(-1) }, ErrLength, "needs -1"},
	} {
		c := NewCursor([]byte{1, 2, 3, 4}, Strict)
		row.take(c)
		if err := c.Done(); !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: %v", row.name, err)
		}
		if row.want == ErrLength && row.name != "left over" && c.U8() != 0 {
			t.Errorf("%s: a field after the error", row.name)
		}
	}
	c = NewCursor([]byte{1, 2}, Lenient)
	if c.Reserved(2); c.Done() != nil {
		t.Error("lenient looks at reserved octets")
	}
}

func TestHeader(t *testing.T) {
	for length, pad := range map[uint32]int{0: 0, 1: 7, 7: 1, 8: 0, 9: 7, 1<<32 - 1: 1} {
		h := Header{Length: length}
		if h.Padding() != pad || h.Padded() != uint64(length)+uint64(pad) {
			t.Errorf("length %d: padding %d, padded %d", length, h.Padding(), h.Padded())
		}
	}
}

func TestReaderErrors(t *testing.T) {
	badPadding := rec(1, "abc")
	badPadding[15] = 1
	for _, row := range []struct {
		name string
		in   []byte
		read func(r *Reader) error
		want error
		text string
	}{
		{"no header", rec(1, "")[:5], func(r *Reader) error { return nil }, ErrTruncated, "offset 0x0: record header: stream ends too early: at offset 0x5"},
		{"nothing", nil, func(r *Reader) error { return nil }, ErrTruncated, "offset 0x0: record header: "},
		{"too large", Header{7, 101}.Append(nil), func(r *Reader) error { return nil }, ErrLimit, "offset 0x0: TYPE_7: record too large: 101"},
		{"body cut off", rec(1, "abcdefgh")[:12], func(r *Reader) error { _, err := r.Body(); return err }, ErrTruncated, "TYPE_1: stream ends too early: at offset 0xc"},
		{"padding cut off", rec(1, "abc")[:13], func(r *Reader) error { _, err := r.Body(); return err }, ErrTruncated, "at offset 0xd"},
		{"padding", badPadding, func(r *Reader) error { _, err := r.Body(); return err }, ErrPadding, "00 00 00 00 01"},
		{"skip with padding", badPadding, (*Reader).Skip, ErrPadding, ""},
		{"more than the body", rec(1, "abc"), func(r *Reader) error { return r.ReadFull(make([]byte, 4)) }, ErrLength, "3 octets left, 4 are needed"},
		{"vectors of more than the body", rec(1, "abc"), func(r *Reader) error { return r.ReadVec([][]byte{make([]byte, 2), make([]byte, 2)}) }, ErrLength, ""},
		{"body not taken", rec(1, "abc"), (*Reader).End, ErrLength, "3 octets, 0 are fields"},
		{"skip cut off", rec(1, "abcdefgh")[:12], (*Reader).Skip, ErrTruncated, "at offset 0xc"},
	} {
		r := reader(row.in, Strict)
		_, err := r.Next()
		if err == nil {
			err = row.read(r)
		}
		if !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.text) || !IsInvalid(err) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	broken := errors.New("broken")
	_, err := NewReader(iotest.ErrReader(broken), Strict, 1, 0, name).Next()
	if !errors.Is(err, broken) || IsInvalid(err) {
		t.Errorf("the source's own error: %v", err)
	}
}

// shortVec is a VecReader that ends after n octets.
type shortVec struct {
	io.Reader
	n int
}

func (s shortVec) ReadVec([][]byte) (int, error) { return s.n, io.EOF }

func TestShortVec(t *testing.T) {
	r := NewReader(shortVec{bytes.NewReader(rec(1, "abcdefgh")), 5}, Strict, 100, 0, name)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	err := r.ReadVec([][]byte{make([]byte, 8)})
	if !errors.Is(err, ErrTruncated) || r.Offset() != 13 || r.Left() != 3 {
		t.Errorf("%v, offset %d, left %d", err, r.Offset(), r.Left())
	}
}

// take reads a body in one of the ways there are, and returns what it saw.
func take(r *Reader, how int) (body []byte, err error) {
	n := int(r.Left())
	switch how {
	case 0:
		return r.Body()
	case 1:
		body = make([]byte, n)
		if err = r.ReadFull(body[:n/2]); err == nil {
			err = r.ReadVec([][]byte{body[n/2 : n/2+(n-n/2)/2], body[n/2+(n-n/2)/2:]})
		}
	case 2:
		var out bytes.Buffer
		err = r.Copy(&out)
		body = out.Bytes()
	case 3:
		return nil, r.Skip()
	}
	if err == nil {
		err = r.End()
	}
	if err == nil {
		err = r.End() // harmless the second time
	}
	return body, err
}

// However a body is taken, and however its source gives it out, it is the same, and nothing behind it is taken.
func TestReaderTakesExactly(t *testing.T) {
	sources := []func(io.Reader) io.Reader{
		func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader,
		func(r io.Reader) io.Reader { return NewPeeker(r) },
		func(r io.Reader) io.Reader { p := NewPeeker(r); _, _ = p.Peek(20); return p },
		func(r io.Reader) io.Reader { p := NewPeeker(NewPeeker(r)); _, _ = p.Peek(3); return p },
	}
	rapid.Check(t, func(t *rapid.T) {
		bodies := rapid.SliceOfN(rapid.StringN(0, 30, 60), 1, 6).Draw(t, "bodies")
		var in []byte
		for i, b := range bodies {
			in = append(in, rec(uint32(i), b)...)
		}
		whole := bytes.NewReader(slices.Concat(in, []byte("behind")))
		src := rapid.SampledFrom(sources).Draw(t, "source")(whole)
		r := NewReader(src, Strict, 100, 1000, name)
		for i, want := range bodies {
			h, err := r.Next()
			if err != nil || h != (Header{uint32(i), uint32(len(want))}) {
				t.Fatal(h, err)
			}
			how := rapid.IntRange(0, 3).Draw(t, "how")
			if got, err := take(r, how); err != nil || how != 3 && string(got) != want {
				t.Fatalf("taken by way %d: %q, %v, want %q", how, got, err, want)
			}
		}
		if r.Offset() != 1000+uint64(len(in)) {
			t.Fatalf("offset %d, want %d", r.Offset(), 1000+len(in))
		}
		if rest, _ := io.ReadAll(src); string(rest) != "behind" {
			t.Fatalf("behind: %q", rest)
		}
	})
}

func TestRaw(t *testing.T) {
	r := reader([]byte("headdata"), Strict)
	var head [4]byte
	if err := r.Raw(head[:], "head"); err != nil || string(head[:]) != "head" {
		t.Error(err)
	}
	data, err := r.RawBody(4, "data")
	if err != nil || string(data) != "data" || r.End() != nil {
		t.Errorf("%q, %v", data, err)
	}
	_, err = r.RawBody(1<<40, "more")
	if !errors.Is(err, ErrTruncated) || !strings.HasPrefix(err.Error(), "offset 0x8: more: ") {
		t.Error(err)
	}
	r = reader(nil, Strict)
	if r.Passed(0x30); r.Raw(head[:1], "tail") == nil || r.Start() != 0x30 {
		t.Error("Passed does not move the offset")
	}
}

func TestPeeker(t *testing.T) {
	p := NewPeeker(bytes.NewReader([]byte("abc")))
	for _, n := range []int{0, 2, 1, 3} {
		if got, err := p.Peek(n); err != nil || string(got) != "abc"[:n] {
			t.Errorf("%d: %q, %v", n, got, err)
		}
	}
	if got, err := p.Peek(4); err != io.ErrUnexpectedEOF || string(got) != "abc" {
		t.Errorf("past the end: %q, %v", got, err)
	}
	var out bytes.Buffer
	if n, err := p.CopyTo(&out, 5); n != 3 || err != io.EOF || out.String() != "abc" {
		t.Errorf("%d, %v, %q", n, err, &out)
	}
}

func TestErrors(t *testing.T) {
	inner := &Error{Offset: 1, Record: "A", Err: ErrValue}
	r := reader(rec(1, ""), Strict)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if err := r.Wrap(fmt.Errorf("doing: %w", inner)); err.Error() != "doing: offset 0x1: A: bad value" {
		t.Error(err)
	}
	if r.Wrap(nil) != nil {
		t.Error("nil is wrapped")
	}
	if err := (&Error{Offset: 16, Err: ErrPadding}); err.Error() != "offset 0x10: padding is not zero" || !IsTolerable(err) {
		t.Error(err)
	}
	if IsTolerable(ErrValue) || IsInvalid(io.EOF) || !IsInvalid(ErrUnusual) || !IsInvalid(ErrMissing) {
		t.Error("kinds")
	}
}
