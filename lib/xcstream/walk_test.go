package xcstream

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/testkit"
)

// walk reads a stream to its END by way of everything that restore and verify use. Each record goes to w as well, if that
// is not nil.
func walk(r *Reader, w *Writer) error {
	if err := r.Headers(); err != nil {
		return err
	}
	if w != nil {
		if err := w.Headers(r.Image, r.Domain); err != nil {
			return err
		}
	}
	order := NewOrder(r.Mode(), r.Image.Version, r.Domain.Type)
	width := 8
	for {
		t, _, err := r.Next()
		if err != nil {
			return err
		}
		if _, err := order.Next(t); err != nil {
			return r.Wrap(err)
		}
		if t == TypePageData {
			err = walkPages(r, w)
		} else {
			err = walkRecord(r, w, t, order, &width)
		}
		if err != nil || t == TypeEnd {
			return err
		}
	}
}

func walkPages(r *Reader, w *Writer) error {
	h, err := r.PageData()
	if err != nil {
		return err
	}
	if w == nil {
		return r.Skip()
	}
	pages := make([][]byte, h.Pages)
	for i := range pages {
		pages[i] = make([]byte, guest.PageSize)
	}
	if err := r.ReadVec(pages); err != nil {
		return err
	}
	return errors.Join(r.End(), w.PageData(h.Entries, pages))
}

func walkRecord(r *Reader, w *Writer, t Type, order *Order, width *int) error {
	v := t.New()
	if err := r.Decode(v); err != nil {
		return err
	}
	var err error
	switch v := v.(type) {
	case *PVInfo:
		*width = int(v.Width)
	case *P2MFrames:
		err = v.Check(*width)
	case *VCPU:
		if err = v.Check(t, *width); err == nil {
			err = order.VCPU(t, v.ID, len(v.Context))
		}
	case *Raw:
		if t == TypeHVMContext {
			_, err = ParseHVMContext(*v)
		}
	}
	if err == nil && w != nil {
		err = w.Record(Record{t, v})
	}
	return r.Wrap(err)
}

// vecSource is a VecReader that gives a few octets at a time to whoever asks it as a Reader.
type vecSource struct{ io.Reader }

func (s vecSource) ReadVec(bufs [][]byte) (int, error) {
	total := 0
	for _, b := range bufs {
		n, err := io.ReadFull(s.Reader, b)
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

// vecSink is a VecWriter.
type vecSink struct{ bytes.Buffer }

func (s *vecSink) WriteVec(bufs [][]byte) (n int, err error) {
	for _, b := range bufs {
		n += len(b)
		s.Write(b)
	}
	return n, nil
}

func vectors(t testing.TB) []testkit.Vector {
	t.Helper()
	vs, err := testkit.Vectors(testkit.LibXC)
	if err != nil {
		t.Fatal(err)
	}
	return vs
}

func TestVectors(t *testing.T) {
	sources := []struct {
		name string
		wrap func(io.Reader) io.Reader
	}{
		{"plain", func(r io.Reader) io.Reader { return r }},
		{"octet by octet", iotest.OneByteReader},
		{"error with data", iotest.DataErrReader},
		{"vectors", func(r io.Reader) io.Reader { return vecSource{iotest.HalfReader(r)} }},
	}
	for _, v := range vectors(t) {
		for _, mode := range []record.Mode{record.Strict, record.Lenient} {
			for _, source := range sources {
				t.Run(v.Name+"/"+modeName(mode)+"/"+source.name, func(t *testing.T) {
					in := bytes.NewReader(v.Data)
					if err := v.Want(mode).Check(walk(NewReader(source.wrap(in), mode, 0), nil)); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

func modeName(m record.Mode) string {
	if m == record.Strict {
		return "strict"
	}
	return "lenient"
}

// What strict reading takes, the Writer writes again octet by octet, and behind END nothing is taken.
func TestWriteAgain(t *testing.T) {
	for _, v := range vectors(t) {
		if v.Strict.Kind != nil {
			continue
		}
		in := bytes.NewReader(append(bytes.Clone(v.Data), "what follows"...))
		r := NewReader(in, record.Strict, 0)
		var plain bytes.Buffer
		if err := walk(r, NewWriter(&plain)); err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if rest, _ := io.ReadAll(in); string(rest) != "what follows" {
			t.Errorf("%s: %d octets behind END are left, want 12", v.Name, len(rest))
		}
		if r.Offset() != uint64(len(v.Data)) {
			t.Errorf("%s: offset %#x at the end, want %#x", v.Name, r.Offset(), len(v.Data))
		}
		var vec vecSink
		w := NewWriter(&vec)
		if err := walk(NewReader(bytes.NewReader(v.Data), record.Strict, 0), w); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		if v.Name == "domain" {
			continue // JSON has many forms
		}
		if !bytes.Equal(plain.Bytes(), v.Data) || !bytes.Equal(vec.Bytes(), v.Data) {
			t.Errorf("%s: written otherwise than read", v.Name)
		}
		if w.Offset() != uint64(len(v.Data)) {
			t.Errorf("%s: writer's offset %#x, want %#x", v.Name, w.Offset(), len(v.Data))
		}
	}
}

// The stream may begin anywhere: errors count from the octet that the caller says.
func TestOffset(t *testing.T) {
	v := vectors(t)[0]
	err := walk(NewReader(bytes.NewReader(v.Data[:30]), record.Strict, 0x1000), nil)
	want := testkit.Outcome{Kind: record.ErrTruncated, Offset: 0x1018}
	if err := want.Check(err); err != nil {
		t.Error(err)
	}
}

// A header that claims much makes the reader allocate for what arrives, and a fixed amount.
func TestClaims(t *testing.T) {
	const most = 4 << 20
	for _, typ := range []Type{TypePageData, TypeHVMContext, TypeX86CPUIDPolicy, record.Optional | 1} {
		head := record.Header{Type: uint32(typ), Length: MaxRecord}.Append(nil)
		in := append(head, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0)
		r := NewReader(bytes.NewReader(in), record.Lenient, 0)
		if _, _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var err error
		if typ == TypePageData {
			_, err = r.PageData()
		} else {
			err = r.Decode(new(Raw))
		}
		runtime.ReadMemStats(&after)
		if !errors.Is(err, record.ErrTruncated) {
			t.Errorf("%v: %v", typ, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > most {
			t.Errorf("%v: %d octets allocated for %d that came", typ, n, len(in))
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(testkit.Squeeze(v.Data))
	}
	f.Fuzz(func(t *testing.T, squeezed []byte) {
		in := testkit.Stretch(squeezed)
		var out bytes.Buffer
		src := bytes.NewReader(in)
		strict := walk(NewReader(src, record.Strict, 0), NewWriter(&out))
		lenient := walk(NewReader(bytes.NewReader(in), record.Lenient, 0), nil)
		var at *record.Error
		if strict != nil && (!errors.As(strict, &at) || !record.IsInvalid(strict)) {
			t.Errorf("strict: an error without place or kind: %v", strict)
		}
		if strict != nil {
			return
		}
		if lenient != nil {
			t.Errorf("lenient refuses what strict takes: %v", lenient)
		}
		taken := in[:len(in)-src.Len()]
		if !bytes.Contains(in, []byte("{")) && !bytes.Equal(out.Bytes(), taken) {
			t.Errorf("accepts % x\nwrites % x", taken, out.Bytes())
		}
	})
}
