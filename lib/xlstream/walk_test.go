package xlstream

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"xenferry/lib/record"
	"xenferry/lib/testkit"
	"xenferry/lib/xcstream"
)

// either is how walk reads that takes either order of octets.
const either = true

// walk reads a stream to its END, an xl header first if xl is set, big-endian ones only if either is. What was read goes to out,
// the libxc stream included.
func walk(src io.Reader, mode record.Mode, either, xl bool, out io.Writer) error {
	w, off := NewWriter(out), uint64(0)
	if xl {
		r := record.NewReader(src, mode, 0, 0, nil)
		if either {
			r.TakeAnyEndian()
		}
		h, err := ReadXLHeader(r)
		if err != nil {
			return err
		}
		if err := w.XLHeader(*h); err != nil {
			return err
		}
		off = r.Offset()
	}
	r := NewReader(src, mode, off)
	if either {
		r.TakeAnyEndian()
	}
	if err := r.Header(); err != nil {
		return err
	}
	if err := w.Header(r.Head); err != nil {
		return err
	}
	order := NewOrder(mode, false)
	for {
		t, _, err := r.Next()
		if err != nil {
			return err
		}
		if err := order.Next(t); err != nil {
			return r.Wrap(err)
		}
		if err := walkRecord(r, w, t); err != nil || t == TypeEnd {
			return err
		}
		if !order.InLibxc() {
			continue
		}
		x := xcstream.NewReader(io.TeeReader(src, out), mode, r.Offset())
		if err := walkLibxc(x); err != nil {
			return err
		}
		r.Passed(x.Offset() - r.Offset())
		order.LibxcEnd(x.Domain.Type == xcstream.DomainHVM)
	}
}

func walkRecord(r *Reader, w *Writer, t Type) error {
	if t != TypeEmulatorContext {
		body := t.New()
		if err := r.Decode(body); err != nil {
			return err
		}
		return w.Record(t, body)
	}
	h, err := r.EmulatorContext()
	if err != nil {
		return err
	}
	var state bytes.Buffer
	if err := r.Copy(&state); err != nil {
		return err
	}
	if err := r.End(); err != nil {
		return err
	}
	return w.EmulatorContext(h, &state, uint64(state.Len()))
}

func walkLibxc(r *xcstream.Reader) error {
	if err := r.Headers(); err != nil {
		return err
	}
	order := xcstream.NewOrder(r.Mode(), r.Image.Version, r.Domain.Type)
	for {
		t, _, err := r.Next()
		if err != nil {
			return err
		}
		if _, err := order.Next(t); err != nil {
			return r.Wrap(err)
		}
		if t.IsVCPU() {
			var v xcstream.VCPU
			if err := r.Decode(&v); err != nil {
				return err
			}
			err = order.VCPU(t, v.ID, len(v.Context))
		} else {
			err = r.Skip()
		}
		if err != nil || t == xcstream.TypeEnd {
			return err
		}
	}
}

func vectors(t testing.TB, format string) []testkit.Vector {
	t.Helper()
	vs, err := testkit.Vectors(format)
	if err != nil {
		t.Fatal(err)
	}
	return vs
}

func TestVectors(t *testing.T) {
	for _, format := range []string{testkit.LibXL, testkit.XL} {
		for _, v := range vectors(t, format) {
			for _, mode := range []record.Mode{record.Strict, record.Lenient} {
				for _, wrap := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.DataErrReader} {
					err := walk(wrap(bytes.NewReader(v.Data)), mode, !either, format == testkit.XL, io.Discard)
					if err := v.Want(mode).Check(err); err != nil {
						t.Errorf("%s/%s, strict %v: %v", format, v.Name, mode, err)
					}
				}
			}
			if err := v.Either.Check(walk(bytes.NewReader(v.Data), record.Strict, either, format == testkit.XL, io.Discard)); err != nil {
				t.Errorf("%s/%s, of either order: %v", format, v.Name, err)
			}
		}
	}
}

// What strict reading takes, the Writer writes again octet by octet, and behind END nothing is taken.
func TestWriteAgain(t *testing.T) {
	for _, format := range []string{testkit.LibXL, testkit.XL} {
		for _, v := range vectors(t, format) {
			if v.Either.Kind != nil {
				continue
			}
			in := bytes.NewReader(append(bytes.Clone(v.Data), "what follows"...))
			var out bytes.Buffer
			if err := walk(in, record.Strict, either, format == testkit.XL, &out); err != nil {
				t.Errorf("%s/%s: %v", format, v.Name, err)
			}
			if !bytes.Equal(out.Bytes(), v.Data) {
				t.Errorf("%s/%s: written otherwise than read", format, v.Name)
			}
			if in.Len() != len("what follows") {
				t.Errorf("%s/%s: %d octets behind END are left, want 12", format, v.Name, in.Len())
			}
		}
	}
}

// A stream of another format is refused by its header.
func TestOtherFormats(t *testing.T) {
	for _, format := range []string{testkit.LibXC, testkit.LibXL, testkit.XL} {
		for _, v := range vectors(t, format) {
			for _, xl := range []bool{false, true} {
				want := testkit.Outcome{Kind: record.ErrValue}
				if xl == (format == testkit.XL) && format != testkit.LibXC {
					continue
				}
				if err := walk(bytes.NewReader(v.Data), record.Lenient, either, xl, io.Discard); err == nil || want.Check(err) != nil && !errors.Is(err, record.ErrTruncated) {
					t.Errorf("%s/%s taken for another: %v", format, v.Name, err)
				}
			}
		}
	}
}

// big reports whether a stream that is valid says of a layer that it is big-endian.
func big(in []byte, xl bool) bool {
	header := in
	if xl {
		e := record.Endian(in[32] == 1)
		if header = in[XLHeaderSize+e.Uint32(in[44:]):]; e == record.BigEndian {
			return true
		}
	}
	return header[15]&OptionBigEndian != 0
}

func FuzzReader(f *testing.F) {
	for _, format := range []string{testkit.LibXL, testkit.XL} {
		for _, v := range vectors(f, format) {
			f.Add(format == testkit.XL, testkit.Squeeze(v.Data))
		}
	}
	f.Fuzz(func(t *testing.T, xl bool, squeezed []byte) {
		in := testkit.Stretch(squeezed)
		var out bytes.Buffer
		src := bytes.NewReader(in)
		strict := walk(src, record.Strict, either, xl, &out)
		lenient := walk(bytes.NewReader(in), record.Lenient, either, xl, io.Discard)
		little := walk(bytes.NewReader(in), record.Strict, !either, xl, io.Discard)
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
		if (little != nil) != big(in, xl) || little != nil && !errors.Is(little, record.ErrValue) {
			t.Errorf("where only little-endian streams are taken: %v", little)
		}
		if taken := in[:len(in)-src.Len()]; !bytes.Equal(out.Bytes(), taken) {
			t.Errorf("accepts % x\nwrites % x", taken, out.Bytes())
		}
	})
}
