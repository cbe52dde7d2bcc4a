package xlstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"xenferry/lib/record"
)

// item is a record of a drawn stream, and the state behind an EMULATOR_CONTEXT's header.
type item struct {
	t        Type
	body     Body
	emulator EmulatorHeader
	state    []byte
}

// drawItem draws any record that strict reading takes.
func drawItem(t *rapid.T) item {
	text := rapid.StringMatching(`[a-z0-9 ]*`)
	h := EmulatorHeader{ID: rapid.Uint32Range(EmulatorUnknown, EmulatorUpstream).Draw(t, "emulator")}
	switch typ := Type(rapid.Uint32Range(uint32(TypeEnd), uint32(TypeCheckpointState)).Draw(t, "type")); typ {
	case TypeEmulatorXenstore:
		d := &XenstoreData{EmulatorHeader: h}
		for range rapid.IntRange(1, 5).Draw(t, "pairs") {
			d.Pairs = append(d.Pairs, KeyValue{"k" + text.Draw(t, "key"), text.Draw(t, "value")})
		}
		return item{t: typ, body: d}
	case TypeEmulatorContext:
		return item{t: typ, emulator: h, state: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "state")}
	case TypeCheckpointState:
		return item{t: typ, body: &CheckpointState{rapid.Uint32Range(CheckpointNew, CheckpointSVMResumed).Draw(t, "state")}}
	default:
		return item{t: typ, body: new(Empty)}
	}
}

// write writes a whole stream, without the libxc one.
func write(t *rapid.T, h Header, items []item) []byte {
	var out bytes.Buffer
	w := NewWriter(&out)
	err := w.Header(h)
	for _, i := range items {
		if i.t == TypeEmulatorContext {
			err = errors.Join(err, w.EmulatorContext(i.emulator, bytes.NewReader(i.state), uint64(len(i.state))))
		} else {
			err = errors.Join(err, w.Record(i.t, i.body))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// read takes an item off r.
func read(r *Reader) (i item, err error) {
	if i.t, _, err = r.Next(); err != nil {
		return i, err
	}
	if i.t != TypeEmulatorContext {
		i.body = i.t.New()
		return i, r.Decode(i.body)
	}
	if i.emulator, err = r.EmulatorContext(); err != nil {
		return i, err
	}
	state := bytes.NewBuffer([]byte{})
	err = errors.Join(r.Copy(state), r.End())
	i.state = state.Bytes()
	return i, err
}

// Records of either order are read as they were written; the orders differ in the numbers alone, and by default only little-endian
// ones are taken.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := Header{rapid.SampledFrom([]uint32{0, OptionLegacy}).Draw(t, "options")}
		items := rapid.SliceOfN(rapid.Custom(drawItem), 0, 9).Draw(t, "items")
		little := write(t, h, items)
		h.Options |= OptionBigEndian
		big := write(t, h, items)
		if len(little) != len(big) {
			t.Fatalf("%d octets little-endian, %d big-endian", len(little), len(big))
		}
		for _, in := range [][]byte{little, big} {
			r := NewReader(bytes.NewReader(in), record.Strict, 0)
			r.TakeAnyEndian()
			err := r.Header()
			if want := record.Endian(&in[0] == &big[0]); err != nil || r.Endian() != want || r.Head.Endian() != want ||
				r.Head.Converted() != (h.Options&OptionLegacy != 0) {
				t.Fatalf("header %+v, %v", r.Head, err)
			}
			for n, want := range items {
				if got, err := read(r); err != nil || !reflect.DeepEqual(got, want) {
					t.Fatalf("item %d, %s-endian: %+v, %v, want %+v", n, r.Endian(), got, err, want)
				}
			}
			if r.Offset() != uint64(len(in)) {
				t.Fatalf("%d octets of %d", r.Offset(), len(in))
			}
		}
		for _, mode := range []record.Mode{record.Strict, record.Lenient} {
			r := NewReader(bytes.NewReader(big), mode, 0)
			if err := r.Header(); !errors.Is(err, record.ErrValue) || r.Offset() != HeaderSize {
				t.Fatalf("strict %v: a big-endian stream is taken: %v", mode, err)
			}
		}
	})
}

// So is xl's header.
func TestXLRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := XLHeader{Endian: record.Endian(rapid.Bool().Draw(t, "big")), JSON: rapid.Bool().Draw(t, "json"), StreamV2: rapid.Bool().Draw(t, "v2")}
		if rapid.Bool().Draw(t, "configured") {
			h.Config = fmt.Appendf(nil, `{"a": %q}`, rapid.StringMatching(`[a-z0-9 ]*`).Draw(t, "config"))
			h.Tail = rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "tail")
		}
		in := h.Append(nil)
		r := record.NewReader(bytes.NewReader(in), record.Strict, 0, 0, nil)
		r.TakeAnyEndian()
		if got, err := ReadXLHeader(r); err != nil || !reflect.DeepEqual(*got, h) || r.Offset() != uint64(len(in)) || r.Endian() != h.Endian {
			t.Fatalf("%+v: %+v, %v", h, got, err)
		}
		for _, mode := range []record.Mode{record.Strict, record.Lenient} {
			r := record.NewReader(bytes.NewReader(in), mode, 0, 0, nil)
			switch got, err := ReadXLHeader(r); {
			case h.Endian == record.LittleEndian && (err != nil || !reflect.DeepEqual(*got, h)):
				t.Fatalf("%+v: %+v, %v", h, got, err)
			case h.Endian == record.BigEndian && (!errors.Is(err, record.ErrValue) || r.Offset() != XLHeaderSize):
				t.Fatalf("strict %v: a big-endian header is taken: %v", mode, err)
			}
		}
	})
}

// The octets of byteorder are of one host or the other.
func TestByteOrder(t *testing.T) {
	for order, want := range map[string]error{"\x04\x03\x02\x01": nil, "\x01\x02\x03\x04": nil, "\x03\x04\x01\x02": record.ErrValue, "\x00\x00\x00\x00": record.ErrValue} {
		in := XLMagic + order + strings.Repeat("\x00", 12)
		r := record.NewReader(strings.NewReader(in), record.Strict, 0, 0, nil)
		r.TakeAnyEndian()
		if h, err := ReadXLHeader(r); !errors.Is(err, want) || want == nil && (err != nil || h.Endian != (order[0] == 1)) {
			t.Errorf("% x: %+v, %v", order, h, err)
		}
	}
}

// A record whose length is taken for that of the other order claims more than there is, and gets no memory for it.
func TestWrongEndian(t *testing.T) {
	in := append(Header{OptionBigEndian}.Append(nil), record.AppendRecord(nil, uint32(TypeEmulatorXenstore), func(b []byte) []byte { return append(b, make([]byte, 64)...) })...)
	r := NewReader(bytes.NewReader(in), record.Strict, 0)
	r.TakeAnyEndian()
	if err := r.Header(); err != nil {
		t.Fatal(err)
	}
	if typ, _, err := r.Next(); typ.Known() || !errors.Is(err, record.ErrLimit) {
		t.Errorf("%v, %v", typ, err)
	}
	if err := r.Copy(io.Discard); !errors.Is(err, record.ErrTruncated) {
		t.Error(err)
	}
}
