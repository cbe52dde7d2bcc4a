package legacy_test

import (
	"bytes"
	"strings"
	"testing"

	"xenferry/lib/legacy"
	"xenferry/lib/legacy/legacytest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// records reads a libxl or bare libxc stream as type and body of each record, in order, libxl's with an x in front.
func records(t *testing.T, format legacy.Format, stream []byte) (names []string, bodies map[string][]byte) {
	t.Helper()
	bodies = map[string][]byte{}
	src := bytes.NewReader(stream)
	take := func(name string, r *record.Reader) {
		body, err := r.Body()
		if err != nil {
			t.Fatal(err)
		}
		names, bodies[name] = append(names, name), bytes.Clone(body)
	}
	xl := xlstream.NewReader(src, record.Strict, 0)
	if format == legacy.LibXL {
		if err := xl.Header(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := xl.Next(); err != nil {
			t.Fatal(err)
		}
	}
	xc := xcstream.NewReader(src, record.Strict, 0)
	if err := xc.Headers(); err != nil {
		t.Fatal(err)
	}
	for {
		typ, _, err := xc.Next()
		if err != nil {
			t.Fatal(err)
		}
		take(typ.String(), xc.Reader)
		if typ == xcstream.TypeEnd {
			break
		}
	}
	for format == legacy.LibXL {
		typ, _, err := xl.Next()
		if err != nil {
			t.Fatal(err)
		}
		take(typ.String(), xl.Reader)
		if typ == xlstream.TypeEnd {
			break
		}
	}
	return names, bodies
}

// params decodes an HVM_PARAMS.
func params(t *testing.T, body []byte) map[uint64]uint64 {
	t.Helper()
	var p xcstream.HVMParams
	if err := p.Decode(record.NewCursor(body, record.Strict)); err != nil {
		t.Fatal(err)
	}
	all := map[uint64]uint64{}
	for _, e := range p {
		all[e.Index] = e.Value
	}
	return all
}

// difference is an image that we convert and Xen's script does not, or the other way round; docs/convert-legacy.md gives
// the reasons.
type difference struct {
	name   string
	img    legacytest.Image
	theirs int    // exit status of Xen's script
	ours   string // our error; if none, check looks at the stream
	check  func(t *testing.T, stream []byte)
}

func hvm(format legacy.Format, data []byte) legacytest.Image {
	return legacytest.Image{Data: data, Format: format, Layout: legacy.Layout{Width: legacy.Width64, Domain: xcstream.DomainHVM}}
}

// emulator checks the EMULATOR_CONTEXT of a libxl stream.
func emulator(state string) func(t *testing.T, stream []byte) {
	return func(t *testing.T, stream []byte) {
		_, bodies := records(t, legacy.LibXL, stream)
		if got := bodies["libxl EMULATOR_CONTEXT"]; string(got[8:]) != state {
			t.Errorf("the emulator's state is %q", got)
		}
	}
}

func differences() []difference {
	w := legacy.Width64
	xend := &legacytest.Writer{Width: w}
	xend.XendHeader("(domain (domid 1))")
	return []difference{
		{"HVM_X87_FIP_WIDTH", hvm(legacy.LibXL, hvmImage(w, func(w *legacytest.Writer) {
			w.Param(legacy.ChunkX87FIPWidth, 8)
			w.Param(legacy.ChunkIdentPT, 9)
		}, qemu(""))), 1, "", func(t *testing.T, stream []byte) {
			i := bytes.Index(stream, []byte{0x0a, 0, 0, 0, 0x28, 0, 0, 0})
			if got := params(t, stream[i+8:i+8+0x28]); got[xcstream.HVMParamX87FIPWidth] != 8 || got[xcstream.HVMParamIdentPT] != 9 {
				t.Errorf("parameters %v", got)
			}
		}},
		{"a region without a name", hvm(legacy.LibXL, hvmImage(w, func(w *legacytest.Writer) {
			w.Toolstack([]legacytest.Region{{Phys: 0xf0, Start: 1, Size: 2}, {Phys: 0xf1, Start: 3, Size: 4, Name: []byte("n\x00")}}, [4]byte{})
		}, qemu(""))), 1, "", func(t *testing.T, stream []byte) {
			_, bodies := records(t, legacy.LibXL, stream)
			const want = "physmap/f0/start_addr\x001\x00physmap/f0/size\x002\x00physmap/f1/start_addr\x003\x00physmap/f1/size\x004\x00physmap/f1/name\x00n\x00"
			if got := bodies["libxl EMULATOR_XENSTORE_DATA"]; string(got[8:]) != want {
				t.Errorf("xenstore data %q", got)
			}
		}},
		{"QEMU record of Remus", hvm(legacy.LibXL, hvmImage(w, nothing, func(w *legacytest.Writer) { w.QEMU(legacy.QEMURemus, []byte("state")) })),
			2, "", emulator("state")},
		{"QEMU record of xend", hvm(legacy.LibXL, hvmImage(w, nothing, func(w *legacytest.Writer) { w.Octets([]byte(legacy.QEMUXend + "QEVMstate")) })),
			2, "", emulator("QEVMstate")},
		{"QEMU record of xend, libxc format", hvm(legacy.LibXC, hvmImage(w, nothing, func(w *legacytest.Writer) { w.Octets([]byte(legacy.QEMUXend + "QEVMstate")) })),
			2, "", func(t *testing.T, stream []byte) {
				if !bytes.HasSuffix(stream, []byte("\x00\x00\x00\x00\x00\x00\x00\x00"+legacy.QEMUXend+"QEVMstate")) {
					t.Error("the record is not behind END as it was")
				}
			}},
		{"xend header", hvm(legacy.LibXL, append(xend.B, hvmImage(w, nothing, qemu("state"))...)), 1, "", emulator("state")},
		{"wrong width, converted to nonsense", legacytest.Image{Data: hvmFirst0(w), NoQEMU: true, Format: legacy.LibXC,
			Layout: legacy.Layout{Width: legacy.Width32, Domain: xcstream.DomainHVM}}, 0, "said to have width 32, guest type hvm, but looks like width 64, guest type hvm", nil},
		{"more HVM parameters than there can be", hvm(legacy.LibXL, hvmImage(w, func(w *legacytest.Writer) {
			for range 1<<16 + 1 {
				w.Param(legacy.ChunkIdentPT, 1)
			}
		}, qemu(""))), 0, "more than 65536 HVM parameters", nil},
		{"more vCPUs than there can be", hvm(legacy.LibXL, hvmImage(w, func(w *legacytest.Writer) {
			for range 17 {
				bitmap := make([]uint64, 64)
				for i := range bitmap {
					bitmap[i] = 1<<64 - 1
				}
				w.VCPUInfo(4095, bitmap...)
			}
		}, qemu(""))), 0, "more than 65536 vCPUs", nil},
		{"more toolstack data than there can be", hvm(legacy.LibXL, hvmImage(w, func(w *legacytest.Writer) {
			data := make([]byte, 4<<20+1)
			data[0] = 1
			w.RawToolstack(data)
		}, qemu(""))), 0, "at most 4194304 are taken", nil},
	}
}

// hvmFirst0 is an HVM image that Xen's script, told the wrong width, takes for one that ends at once.
func hvmFirst0(width legacy.Width) []byte {
	w := &legacytest.Writer{Width: width}
	w.Size(16)
	w.Batch([]uint64{0, 1, 2, 3}, func(uint64, []byte) {})
	return w.B
}

// TestDifferences: each deliberate difference is one.
func TestDifferences(t *testing.T) {
	ref := newReference(t, "convert-legacy-stream")
	for _, d := range differences() {
		t.Run(d.name, func(t *testing.T) {
			if _, status := ref.convert(d.img); status != d.theirs {
				t.Errorf("Xen's script has exit status %d, not %d: no difference to be deliberate about", status, d.theirs)
			}
			stream, _, err := convert(d.img, false)
			switch {
			case d.ours == "" && err != nil, d.ours != "" && (err == nil || !strings.Contains(err.Error(), d.ours)):
				t.Errorf("%v", err)
			case d.check != nil:
				d.check(t, stream)
			}
		})
	}
}

// TestHeldBack: a libxc stream has no END unless the QEMU record behind it is whole.
func TestHeldBack(t *testing.T) {
	data := hvmImage(legacy.Width64, nothing, qemu("state"))
	for cut := range 6 + 4 + 21 {
		stream, _, err := convert(hvm(legacy.LibXC, data[:len(data)-cut]), false)
		if ended := strings.HasSuffix(string(stream), "state"); ended != (cut == 0) || (err == nil) != (cut == 0) {
			t.Errorf("%d octets cut off: %v, ended %v", cut, err, ended)
		}
		if cut > 0 && bytes.HasSuffix(stream, make([]byte, 8)) {
			t.Errorf("%d octets cut off: there is an END", cut)
		}
	}
}
