package xlstream

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"runtime"
	"testing"

	"xenferry/lib/record"
)

// The octets that the specification fixes.
func TestFixed(t *testing.T) {
	for want, w := range map[string]func(*Writer) error{
		"4c6962786c466d740000000200000000": func(w *Writer) error { return w.Header(Header{}) },
		"0100000000000000":                 func(w *Writer) error { return w.Record(TypeLibxcContext, nil) },
		"0000000000000000":                 func(w *Writer) error { return w.Record(TypeEnd, nil) },
		"05000000040000000200000000000000": func(w *Writer) error { return w.Record(TypeCheckpointState, &CheckpointState{CheckpointSVMReady}) },
		"4c6962786c466d740000000200000003" + "00000005000000040000000200000000": func(w *Writer) error {
			return errors.Join(w.Header(Header{OptionBigEndian | OptionLegacy}), w.Record(TypeCheckpointState, &CheckpointState{CheckpointSVMReady}))
		},
		"4c6962786c466d740000000200000001" + "0000000300000009" + "0000000200000000" + "2a00000000000000": func(w *Writer) error {
			return errors.Join(w.Header(Header{OptionBigEndian}), w.EmulatorContext(EmulatorHeader{ID: EmulatorUpstream}, bytes.NewReader([]byte("*")), 1))
		},
	} {
		var out bytes.Buffer
		if err := w(NewWriter(&out)); err != nil || hex.EncodeToString(out.Bytes()) != want {
			t.Errorf("%x, %v, want %s", out.Bytes(), err, want)
		}
	}
	magic := "58656e20736176656420646f6d61696e2c20786c20666f726d61740a2000200d"
	if hex.EncodeToString([]byte(XLMagic)) != magic {
		t.Errorf("magic % x", XLMagic)
	}
}

func TestOrder(t *testing.T) {
	const (
		libxcEnd   = Type(100) // told, not asked
		checkpoint = Type(101)
	)
	xs, em, end, libxc, cend, state := TypeEmulatorXenstore, TypeEmulatorContext, TypeEnd, TypeLibxcContext, TypeCheckpointEnd, TypeCheckpointState
	for _, row := range []struct {
		name  string
		colo  bool
		steps []Type
		want  error // of the last step, in strict mode
	}{
		{"plain", false, []Type{libxc, libxcEnd, xs, em, end}, nil},
		{"within libxc", false, []Type{libxc, em}, record.ErrOrder},
		{"after END", false, []Type{libxc, libxcEnd, end, em}, record.ErrOrder},
		{"Remus", false, []Type{libxc, checkpoint, xs, em, cend, checkpoint, em, cend, libxcEnd, end}, nil},
		{"Remus, twice in a checkpoint", false, []Type{libxc, checkpoint, em, em}, record.ErrUnusual},
		{"END in a checkpoint", false, []Type{libxc, checkpoint, end}, record.ErrOrder},
		{"LIBXC_CONTEXT in a checkpoint", false, []Type{libxc, checkpoint, libxc}, record.ErrOrder},
		{"a state that nobody waits for", false, []Type{libxc, checkpoint, cend, state}, record.ErrOrder},
		{"COLO", true, []Type{libxc, checkpoint, em, cend, state, checkpoint, em, cend, state}, nil},
		{"COLO without its state", true, []Type{libxc, checkpoint, em, cend, em}, record.ErrOrder},
		{"unknown", false, []Type{libxc, libxcEnd, 6}, record.ErrUnknown},
	} {
		for _, mode := range []record.Mode{record.Strict, record.Lenient} {
			o := NewOrder(mode, row.colo)
			for i, typ := range row.steps {
				var err, want error
				if i == len(row.steps)-1 {
					want = row.want
				}
				switch typ {
				case libxcEnd:
					o.LibxcEnd(true)
				case checkpoint:
					o.Checkpoint(true)
				default:
					err = o.Next(typ)
				}
				if mode == record.Lenient && record.IsTolerable(want) {
					want = nil
				}
				if !errors.Is(err, want) || want == nil && err != nil {
					t.Errorf("%s, strict %v, step %d: %v, want %v", row.name, mode, i, err, want)
				}
			}
		}
	}
}

// A header that claims much makes the readers allocate for what arrives, and a fixed amount.
func TestClaims(t *testing.T) {
	const most = 4 << 20
	claim := func(t Type, n uint32) []byte { return record.Header{Type: uint32(t), Length: n}.Append(nil) }
	big := XLHeader{StreamV2: true}.Append(nil)
	binary.LittleEndian.PutUint32(big[44:], MaxXLData)
	for _, row := range []struct {
		name string
		in   []byte
		read func(src io.Reader) error
	}{
		{"xl header", big, func(src io.Reader) error {
			_, err := ReadXLHeader(record.NewReader(src, record.Lenient, 0, 0, nil))
			return err
		}},
		{"xenstore data", claim(TypeEmulatorXenstore, MaxBody), func(src io.Reader) error {
			r := NewReader(src, record.Lenient, 0)
			if _, _, err := r.Next(); err != nil {
				return err
			}
			return r.Decode(new(XenstoreData))
		}},
		{"emulator", append(claim(TypeEmulatorContext, math.MaxUint32), make([]byte, 8)...), func(src io.Reader) error {
			r := NewReader(src, record.Lenient, 0)
			if _, _, err := r.Next(); err != nil {
				return err
			}
			if _, err := r.EmulatorContext(); err != nil {
				return err
			}
			return r.Copy(io.Discard)
		}},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := row.read(bytes.NewReader(row.in))
		runtime.ReadMemStats(&after)
		if !errors.Is(err, record.ErrTruncated) {
			t.Errorf("%s: %v", row.name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > most {
			t.Errorf("%s: %d octets allocated for %d that came", row.name, n, len(row.in))
		}
	}
}

func TestEmulatorContextLimit(t *testing.T) {
	var out bytes.Buffer
	if err := NewWriter(&out).EmulatorContext(EmulatorHeader{}, nil, math.MaxUint32-7); !errors.Is(err, record.ErrLimit) || out.Len() != 0 {
		t.Errorf("%v, %d octets out", err, out.Len())
	}
	err := NewWriter(&out).EmulatorContext(EmulatorHeader{}, bytes.NewReader([]byte("12")), 3)
	if !errors.Is(err, io.EOF) {
		t.Errorf("a state shorter than said: %v", err)
	}
}
