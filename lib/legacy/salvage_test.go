package legacy_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/legacy"
	"xenferry/lib/legacy/legacytest"
	"xenferry/lib/record"
	"xenferry/lib/verify"
	"xenferry/lib/xcstream"
)

var le = binary.LittleEndian

// salvage converts what is whole.
func salvage(t *testing.T, img legacytest.Image) ([]byte, legacy.Result, error) {
	t.Helper()
	var out bytes.Buffer
	r := legacy.NewReader(bytes.NewReader(img.Data), legacy.Options{SkipQEMU: img.NoQEMU && img.Format == legacy.LibXC})
	result, err := legacy.Convert(&out, r, legacy.Conversion{Format: img.Format, Version: 3, Salvage: true, Spool: newSpool})
	if err != nil && !record.IsInvalid(err) && !errors.Is(err, legacy.ErrUnsupported) {
		t.Fatal(err)
	}
	return out.Bytes(), result, err
}

// TestSalvageWhole: there is nothing to salvage in an image that is whole.
func TestSalvageWhole(t *testing.T) {
	for seed := range uint64(30) {
		img := legacytest.Genuine(seed)
		want, _, err := convert(img, true)
		got, result, err2 := salvage(t, img)
		if err != nil || err2 != nil || !bytes.Equal(got, want) || result.Problems != 0 || result.Missing != "" {
			t.Errorf("%s: %v, %v, %+v", img.What, err, err2, result)
		}
	}
}

// TestSalvageCut: of an image that ends too early, what comes out is whole records, the beginning of what would have come
// out, and no more of it than was there. An END comes only behind all of its layer.
func TestSalvageCut(t *testing.T) {
	for seed := range uint64(12) {
		img := legacytest.Genuine(seed)
		whole, _, err := convert(img, true)
		if err != nil {
			t.Fatal(err)
		}
		data := img.Data
		for n := 0; n < len(data); n += 1 + len(data)/23 {
			img.Data = data[:len(data)-1-n]
			got, result, err := salvage(t, img)
			if err == nil || result.Problems != 1 || len(img.Data) > legacy.DetectSize && result.Missing == "" {
				t.Fatalf("%s cut to %#x: %v, %+v", img.What, len(img.Data), err, result)
			}
			r, err := verify.Verify(bytes.NewReader(got), verify.Options{AllowTrailing: true})
			if err != nil {
				t.Fatal(err)
			}
			if len(got) > 0 && !r.Valid && (!errors.Is(r.Error.Err(), record.ErrTruncated) || r.Error.Offset != uint64(len(got))) {
				t.Fatalf("%s cut to %#x: half a record: %v", img.What, len(img.Data), r.Error.Err())
			}
			if r.Valid && img.Format == legacy.LibXL {
				t.Fatalf("%s cut to %#x: looks whole", img.What, len(img.Data))
			}
			if !bytes.HasPrefix(whole, got) && !partBatch(whole, got) {
				t.Fatalf("%s cut to %#x: not a part of the whole from %#x", img.What, len(img.Data), differAt(whole, got))
			}
		}
	}
}

// partBatch reports whether got is a beginning of whole but for its last record, a PAGE_DATA with fewer pages.
func partBatch(whole, got []byte) bool {
	at := differAt(whole, got) &^ 7
	return at >= 8 && bytes.Equal(whole[:at-8], got[:at-8]) || at == 0
}

// TestSalvageDamage: damage that leaves the place known costs only what is damaged.
func TestSalvageDamage(t *testing.T) {
	w := legacy.Width64
	twice := func(w *legacytest.Writer) {
		n := byte(0)
		w.Batch([]uint64{5, 0xf0000000 | 6, 5, 7}, func(_ uint64, p []byte) { n++; p[0] = n })
	}
	for _, row := range []struct {
		name   string
		img    legacytest.Image
		reason string
		check  func(names []string, bodies map[string][]byte) bool
	}{
		{"an entry twice", hvm(legacy.LibXC, hvmImage(w, twice, nothing)), "comes twice", func(_ []string, b map[string][]byte) bool {
			page := b["PAGE_DATA"]
			return le.Uint32(page) == 3 && len(page) == 8+3*8+2*guest.PageSize && page[8+3*8] == 2 && page[8+3*8+guest.PageSize] == 3
		}},
		{"HVM parameter of a PV guest", legacytest.Image{Format: legacy.LibXC, Data: pvImage(w, func(w *legacytest.Writer) { w.Param(legacy.ChunkIdentPT, 1) })},
			"came for a PV guest", func(names []string, _ map[string][]byte) bool { return !slices.Contains(names, "HVM_PARAMS") }},
		{"toolstack data", hvm(legacy.LibXL, hvmImage(w, func(w *legacytest.Writer) { w.RawToolstack([]byte("not of libxl")) }, qemu("state"))),
			"toolstack data of version", func(names []string, _ map[string][]byte) bool {
				return names[len(names)-1] == "libxl END" && !slices.Contains(names, "libxl EMULATOR_XENSTORE_DATA")
			}},
		{"compression, which does not concern the first checkpoint", legacytest.Image{Format: legacy.LibXL,
			Data: pvImage(w, func(w *legacytest.Writer) { w.Chunk(legacy.ChunkEnableCompression) })},
			"differences", func(names []string, _ map[string][]byte) bool { return names[len(names)-1] == "libxl END" }},
		{"unknown extended info", legacytest.Image{Format: legacy.LibXC, Data: unknownBlock(w)}, "no writer has such a block",
			func(names []string, _ map[string][]byte) bool {
				return names[0] == "X86_PV_INFO" && names[len(names)-1] == "END"
			}},
	} {
		row.img.NoQEMU = row.img.Format == legacy.LibXC
		stream, result, err := salvage(t, row.img)
		if err == nil || !strings.Contains(err.Error(), row.reason) || result.Problems != 1 || result.Missing != "" {
			t.Errorf("%s: %v, %+v", row.name, err, result)
			continue
		}
		if names, bodies := records(t, row.img.Format, stream); !row.check(names, bodies) {
			t.Errorf("%s: %v", row.name, names)
		}
		if _, status, _ := convert(row.img, true); status == 0 {
			t.Errorf("%s: is not damaged", row.name)
		}
	}
}

// TestSalvageMuch: of many damages the first are told, and how many more there are.
func TestSalvageMuch(t *testing.T) {
	data := hvmImage(legacy.Width32, func(w *legacytest.Writer) {
		for range 50 {
			w.Chunk(legacy.ChunkEnableCompression)
		}
	}, nothing)
	_, result, err := salvage(t, legacytest.Image{Data: data, NoQEMU: true, Format: legacy.LibXC})
	if err == nil || result.Problems != 50 || strings.Count(err.Error(), "ENABLE_COMPRESSION") != 20 || !strings.HasSuffix(err.Error(), "\nand 30 more") {
		t.Errorf("%+v, %v", result, err)
	}
}

func unknownBlock(width legacy.Width) []byte {
	rest := pvImage(width, nothing)[2*width+4+8+xcstream.VCPUContextSize64:]
	w := &legacytest.Writer{Width: width}
	w.Size(16)
	w.ExtInfo(legacytest.Block{ID: "vcpu", Data: make([]byte, xcstream.VCPUContextSize64)}, legacytest.Block{ID: "what", Data: make([]byte, 99)})
	return append(w.B, rest...)
}

func newSpool() (legacy.Spool, error) { return &memorySpool{}, nil }

// memorySpool is a legacy.Spool.
type memorySpool struct{ bytes.Buffer }

func (s *memorySpool) Writer() io.Writer { return &s.Buffer }
func (s *memorySpool) Reset() error      { s.Buffer.Reset(); return nil }
func (s *memorySpool) MoveTo(w io.Writer) error {
	_, err := s.WriteTo(w)
	return err
}

// remus is an HVM image with checkpoints, each of which has a page, state and a QEMU record of its own, and what belongs to
// checkpoint i has the octet or number i. ends[i] is where checkpoint i is whole.
func remus(width legacy.Width, count int) (data []byte, ends []int) {
	w := &legacytest.Writer{Width: width}
	w.Size(16)
	for i := range count {
		w.Batch([]uint64{0, uint64(1 + i%3)}, func(_ uint64, p []byte) { p[0] = byte(i) })
		w.TSC(guest.TSC{Mode: 1, Incarnation: uint32(i)})
		w.VCPUInfo(0, 1)
		w.Param(legacy.ChunkIdentPT, uint64(0x100+i))
		if i == 0 {
			w.Param(legacy.ChunkViridian, 1)
		}
		w.Toolstack([]legacytest.Region{{Phys: uint64(i), Name: []byte("n\x00")}}, [4]byte{})
		w.Chunk(legacy.ChunkEnd)
		w.MagicPFNs(1, 2, 3)
		w.Blob([]byte{byte(i)})
		w.QEMU(legacy.QEMULibxl, []byte{byte(i)})
		ends = append(ends, len(w.B))
	}
	return w.B, ends
}

// lastCheckpoint converts the last whole checkpoint.
func lastCheckpoint(data []byte, format legacy.Format) ([]byte, legacy.Result, error) {
	var out bytes.Buffer
	r := legacy.NewReader(bytes.NewReader(data), legacy.Options{Checkpoints: true})
	result, err := legacy.Convert(&out, r, legacy.Conversion{Format: format, Version: 3, Last: true,
		Spool: newSpool})
	return out.Bytes(), result, err
}

// TestLastCheckpoint: wherever a Remus image ends, what comes out is the last checkpoint that is whole: its state, and
// memory as it was then.
func TestLastCheckpoint(t *testing.T) {
	for _, width := range []legacy.Width{legacy.Width32, legacy.Width64} {
		data, ends := remus(width, 4)
		for cut := ends[0] - 1; cut <= len(data); cut += 61 {
			whole, _ := slices.BinarySearch(ends, cut+1)
			stream, result, err := lastCheckpoint(data[:cut], legacy.LibXL)
			if whole == 0 {
				if !errors.Is(err, record.ErrTruncated) {
					t.Errorf("no checkpoint is whole: %v", err)
				}
				continue
			}
			if err != nil || result.Checkpoints != whole {
				t.Fatalf("cut to %#x, %d checkpoints are whole: %v, %+v", cut, whole, err, result)
			}
			checkCheckpoint(t, stream, whole)
		}
		first, _, err := convert(hvm(legacy.LibXL, data), true)
		if err != nil {
			t.Fatal(err)
		}
		checkCheckpoint(t, first, 1)
	}
}

// checkCheckpoint holds a stream against the last of whole checkpoints of remus.
func checkCheckpoint(t *testing.T, stream []byte, whole int) {
	t.Helper()
	names, bodies := records(t, legacy.LibXL, stream)
	last := byte(whole - 1)
	count := func(name string) (n int) {
		for _, s := range names {
			if s == name {
				n++
			}
		}
		return n
	}
	for name, want := range map[string]int{"PAGE_DATA": whole, "X86_TSC_INFO": 1, "HVM_PARAMS": 2, "HVM_CONTEXT": 1, "END": 1,
		"libxl EMULATOR_XENSTORE_DATA": 1, "libxl EMULATOR_CONTEXT": 1, "libxl END": 1} {
		if count(name) != want {
			t.Errorf("%d checkpoints: %s comes %d times in %v", whole, name, count(name), names)
		}
	}
	page, tsc, context, qemu := bodies["PAGE_DATA"], bodies["X86_TSC_INFO"], bodies["HVM_CONTEXT"], bodies["libxl EMULATOR_CONTEXT"]
	if page[8+2*8] != last || tsc[16] != last || context[0] != last || qemu[8] != last {
		t.Errorf("%d checkpoints: page %d, TSC %d, context %d, emulator %d", whole, page[24], tsc[16], context[0], qemu[8])
	}
	if want := "physmap/" + string('0'+rune(last)) + "/start_addr"; !strings.HasPrefix(string(bodies["libxl EMULATOR_XENSTORE_DATA"][8:]), want) {
		t.Errorf("%d checkpoints: xenstore data %q", whole, bodies["libxl EMULATOR_XENSTORE_DATA"])
	}
}

// TestLastCheckpointOfOne: an image that says that its first checkpoint is its last is not read on.
func TestLastCheckpointOfOne(t *testing.T) {
	for seed := range uint64(20) {
		img := legacytest.Genuine(seed)
		if img.NoQEMU && img.Format == legacy.LibXC {
			continue
		}
		want, _, err := convert(img, true)
		if err != nil {
			t.Fatal(err)
		}
		got, result, err := lastCheckpoint(append(img.Data, "behind"...), img.Format)
		sameRecords(t, img, got, want)
		if err != nil || int(result.Input) != len(img.Data) {
			t.Errorf("%s: %v, %+v", img.What, err, result)
		}
	}
}

// sameRecords: the same records, whose order may differ in X86_TSC_INFO, which the last checkpoint's end brings.
func sameRecords(t *testing.T, img legacytest.Image, got, want []byte) {
	t.Helper()
	a, _ := records(t, img.Format, got)
	b, _ := records(t, img.Format, want)
	slices.Sort(a)
	slices.Sort(b)
	if len(got) != len(want) || !slices.Equal(a, b) {
		t.Errorf("%s: %v, want %v", img.What, a, b)
	}
}
