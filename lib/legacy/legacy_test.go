package legacy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"xenferry/lib/guest"
	"xenferry/lib/legacy"
	"xenferry/lib/legacy/legacytest"
	"xenferry/lib/record"
	"xenferry/lib/testkit"
	"xenferry/lib/xcstream"
)

// example is a small HVM image of width 64.
const example = `
10000000 00000000                                     ; p2m_size 16
f9ffffff 01000000 02000000 00000000 03000000 04000000 ; TSC_INFO
fdffffff 00000000 00c0fffe 00000000                   ; HVM_IDENT_PT
feffffff 00000000 01000000 00000000                   ; VCPU_INFO
eeffffff 2a000000 01000000 01000000                   ; TOOLSTACK
 10000000 00000000 20000000 00000000 30000000 00000000 02000000 6100 eeeeeeee
f7ffffff 00000000                                     ; LAST_CHECKPOINT, END
01000000 00000000 02000000 00000000 03000000 00000000 ; magic PFNs
03000000 637478                                       ; HVM context "ctx"
446576696365 4d6f64656c 5265636f7264 30303032         ; DeviceModelRecord0002
02000000 7171
`

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := testkit.ParseHex(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// items reads an image to its end or first error.
func items(r *legacy.Reader) (lines []string, err error) {
	for {
		item, err := r.Next()
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		lines = append(lines, fmt.Sprintf("%#x %v", r.Start(), item))
	}
}

func TestReader(t *testing.T) {
	r := legacy.NewReader(bytes.NewReader(unhex(t, example)), legacy.Options{})
	got, err := items(r)
	want := []string{
		"0x0 p2m_size: 0x10 PFNs",
		"0x8 TSC_INFO: mode 1, 2 ns, 3 kHz, incarnation 4",
		"0x20 HVM_IDENT_PT: 0xfeffc000",
		"0x30 VCPU_INFO: max_id 0, online [0]",
		"0x40 TOOLSTACK: 42 octets",
		"0x72 LAST_CHECKPOINT",
		"0x76 END",
		"0x7a magic PFNs: ioreq 0x1, bufioreq 0x2, store 0x3",
		"0x92 HVM context: 3 octets",
		`0x99 QEMU record "DeviceModelRecord0002": 2 octets`,
	}
	if err != nil || !slices.Equal(got, want) || r.Offset() != 180 {
		t.Errorf("%v, offset %d\n%s", err, r.Offset(), strings.Join(got, "\n"))
	}
}

// pvImage writes a PV image with one page, one vCPU and what chunks adds.
func pvImage(w legacy.Width, chunks func(w *legacytest.Writer)) []byte {
	img := &legacytest.Writer{Width: w}
	img.Size(16)
	img.ExtInfo(legacytest.Block{ID: "vcpu", Data: make([]byte, xcstream.VCPUContextSize64)})
	img.P2M([]uint64{0})
	img.Batch([]uint64{0}, func(uint64, []byte) {})
	chunks(img)
	img.VCPUInfo(0, 1)
	img.Chunk(legacy.ChunkEnd)
	img.Unmapped(nil)
	img.VCPU(legacytest.VCPU{Context: make([]byte, xcstream.VCPUContextSize64)})
	img.Octets(make([]byte, guest.PageSize))
	return img.B
}

// hvmImage writes an HVM image with one page, what chunks adds, and what is behind the HVM context.
func hvmImage(w legacy.Width, chunks, behind func(w *legacytest.Writer)) []byte {
	img := &legacytest.Writer{Width: w}
	img.Size(16)
	img.Batch([]uint64{0}, func(uint64, []byte) {})
	chunks(img)
	img.VCPUInfo(0, 1)
	img.Chunk(legacy.ChunkEnd)
	img.MagicPFNs(1, 2, 3)
	img.Blob([]byte("context"))
	behind(img)
	return img.B
}

func nothing(*legacytest.Writer) {}

func qemu(state string) func(*legacytest.Writer) {
	return func(w *legacytest.Writer) { w.QEMU(legacy.QEMULibxl, []byte(state)) }
}

func TestDetect(t *testing.T) {
	pv, hvm := xcstream.DomainPV, xcstream.DomainHVM
	for _, row := range []struct {
		name    string
		data    []byte
		want    legacy.Layout
		certain bool
		err     string
	}{
		{"PV, 32", pvImage(legacy.Width32, nothing), legacy.Layout{Width: 4, Domain: pv}, true, ""},
		{"PV, 64", pvImage(legacy.Width64, nothing), legacy.Layout{Width: 8, Domain: pv}, true, ""},
		{"PV, 64, of 2^32 PFNs", append([]byte{0, 0, 0, 0, 1}, pvImage(legacy.Width64, nothing)[5:]...), legacy.Layout{Width: 8, Domain: pv}, true, ""},
		{"HVM, 32", hvmImage(legacy.Width32, nothing, nothing), legacy.Layout{Width: 4, Domain: hvm}, true, ""},
		{"HVM, 64", unhex(t, example), legacy.Layout{Width: 8, Domain: hvm}, true, ""},
		{"HVM, 64, or 32 that begins with END", append([]byte{16}, make([]byte, 27)...), legacy.Layout{Width: 8, Domain: hvm}, false, ""},
		{"libxc stream", append(xcstream.ImageHeader{Version: 3}.Append(nil), make([]byte, 4)...), legacy.Layout{}, false, "needs no conversion"},
		{"libxl stream", append([]byte("LibxlFmt"), make([]byte, 20)...), legacy.Layout{}, false, "needs no conversion"},
		{"text", []byte("What you see here is no image"), legacy.Layout{}, false, "neither a legacy image"},
		{"zeros", make([]byte, 28), legacy.Layout{}, false, "neither a legacy image"},
		{"no chunk", append([]byte{16, 0, 0, 0, 0, 0, 0, 0, 255, 255}, make([]byte, 18)...), legacy.Layout{}, false, "neither a legacy image"},
		{"gzip", append([]byte{0x1f, 0x8b, 8}, make([]byte, 25)...), legacy.Layout{}, false, "compressed by gzip"},
		{"short", make([]byte, 27), legacy.Layout{}, false, "stream ends too early"},
	} {
		got, certain, err := legacy.Detect(row.data[:min(len(row.data), legacy.DetectSize)])
		if row.err != "" {
			if err == nil || !strings.Contains(err.Error(), row.err) || !record.IsInvalid(err) {
				t.Errorf("%s: %v", row.name, err)
			}
			continue
		}
		if err != nil || got != row.want || certain != row.certain {
			t.Errorf("%s: %v, certain %v, %v", row.name, got, certain, err)
		}
	}
}

// TestWrongLayout: who says what an image is not learns what it is.
func TestWrongLayout(t *testing.T) {
	images := map[legacy.Layout][]byte{}
	for _, w := range []legacy.Width{legacy.Width32, legacy.Width64} {
		images[legacy.Layout{Width: w, Domain: xcstream.DomainPV}] = pvImage(w, nothing)
		images[legacy.Layout{Width: w, Domain: xcstream.DomainHVM}] = hvmImage(w, nothing, qemu(""))
	}
	for is, data := range images {
		for said := range images {
			_, err := items(legacy.NewReader(bytes.NewReader(data), legacy.Options{Layout: said}))
			switch {
			case said == is && err != nil:
				t.Errorf("%v: %v", is, err)
			case said != is && (err == nil || !strings.Contains(err.Error(), fmt.Sprintf("said to have %v, but looks like %v", said, is))):
				t.Errorf("%v said to be %v: %v", is, said, err)
			}
		}
	}
}

// TestErrors: what is wrong is said with its kind, its offset and the part of the image.
func TestErrors(t *testing.T) {
	pv := func(chunks func(w *legacytest.Writer)) []byte { return pvImage(legacy.Width64, chunks) }
	const chunks = 28 + xcstream.VCPUContextSize64 + 8 + 4 + 8 + guest.PageSize // offset of what follows the first batch
	for _, row := range []struct {
		name   string
		data   []byte
		kind   error
		offset uint64
		item   string
	}{
		{"nothing", nil, record.ErrTruncated, 0, "image"},
		{"cut off in a context", pv(nothing)[:100], record.ErrTruncated, 20, `extended info "vcpu"`},
		{"cut off in pages", pv(nothing)[:chunks-1], record.ErrTruncated, chunks - guest.PageSize - 12, "page batch"},
		{"cut off in shared info", pv(nothing)[:len(pv(nothing))-1], record.ErrTruncated, uint64(len(pv(nothing))) - guest.PageSize, "shared info"},
		{"unknown chunk", pv(func(w *legacytest.Writer) { w.Chunk(-22) }), record.ErrUnknown, chunks, "chunk -22"},
		{"tmem", pv(func(w *legacytest.Writer) { w.Chunk(legacy.ChunkTmem) }), legacy.ErrUnsupported, chunks, "TMEM"},
		{"tmem, extra", pv(func(w *legacytest.Writer) { w.Chunk(legacy.ChunkTmemExtra) }), legacy.ErrUnsupported, chunks, "TMEM_EXTRA"},
		{"compression", pv(func(w *legacytest.Writer) { w.Chunk(legacy.ChunkEnableCompression) }), legacy.ErrUnsupported, chunks, "ENABLE_COMPRESSION"},
		{"compressed", pv(func(w *legacytest.Writer) { w.Chunk(legacy.ChunkCompressedData); w.Blob([]byte("delta")) }), legacy.ErrUnsupported, chunks, "COMPRESSED_DATA"},
		{"compressed, cut off", pv(func(w *legacytest.Writer) { w.Chunk(legacy.ChunkCompressedData); w.Blob(make([]byte, 50)) })[:chunks+40], record.ErrTruncated, chunks, "COMPRESSED_DATA"},
		{"batch too large", pv(func(w *legacytest.Writer) { w.Chunk(1025) }), record.ErrLimit, chunks, "page batch"},
		{"an entry twice", pv(func(w *legacytest.Writer) { w.Batch([]uint64{1, 1}, func(uint64, []byte) {}) }), record.ErrValue, chunks, "page batch"},
		{"max_id", pv(func(w *legacytest.Writer) { w.VCPUInfo(4096) }), record.ErrLimit, chunks, "VCPU_INFO"},
		{"HVM parameter of a PV guest", pv(func(w *legacytest.Writer) { w.Param(legacy.ChunkIdentPT, 1) }), record.ErrOrder, chunks + 16 + 16, "END"},
		{"QEMU signature", hvmImage(legacy.Width32, nothing, func(w *legacytest.Writer) { w.QEMU("NoDeviceModelRecord00", nil) }), legacy.ErrUnsupported, 8 + 4 + guest.PageSize + 16 + 4 + 24 + 11, "QEMU record"},
	} {
		_, _, err := convert(legacytest.Image{Data: row.data, Format: legacy.LibXL}, true)
		var at *record.Error
		if !errors.Is(err, row.kind) || !errors.As(err, &at) || at.Offset != row.offset || at.Record != row.item {
			t.Errorf("%s: %v, want %v at %#x, %s", row.name, err, row.kind, row.offset, row.item)
		}
	}
}

// TestTakesExactly: however the input comes, not an octet behind the image is taken, and the output is the same.
func TestTakesExactly(t *testing.T) {
	images := []legacytest.Image{
		{What: "shortest HVM image", NoQEMU: true, Format: legacy.LibXC, Data: unhex(t, "10000000 f7ffffff f7ffffff 00000000 "+strings.Repeat("00", 28))},
		{What: "short PV image", Format: legacy.LibXL, Data: pvImage(legacy.Width64, func(w *legacytest.Writer) { w.Chunk(legacy.ChunkLastCheckpoint) })},
	}
	for seed := range uint64(20) {
		images = append(images, legacytest.Genuine(seed))
	}
	for _, img := range images {
		want, _, err := convert(img, true)
		if err != nil {
			t.Fatal(err)
		}
		for i, slow := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
			const behind = "octets behind the image"
			src := slow(bytes.NewReader(append(bytes.Clone(img.Data), behind...)))
			var out bytes.Buffer
			r := legacy.NewReader(src, legacy.Options{SkipQEMU: img.NoQEMU && img.Format == legacy.LibXC})
			_, err := legacy.Convert(&out, r, legacy.Conversion{Format: img.Format, Version: 3})
			rest, _ := io.ReadAll(src)
			if err != nil || !bytes.Equal(out.Bytes(), want) || string(rest) != behind {
				t.Fatalf("%s, source %d: %v, %d octets left", img.What, i, err, len(rest))
			}
		}
	}
}

// TestVersion2 differs from version 3 in the number and in STATIC_DATA_END.
func TestVersion2(t *testing.T) {
	for _, data := range [][]byte{pvImage(legacy.Width64, nothing), hvmImage(legacy.Width32, nothing, qemu("state"))} {
		var two, three bytes.Buffer
		for v, out := range map[uint32]*bytes.Buffer{2: &two, 3: &three} {
			if _, err := legacy.Convert(out, legacy.NewReader(bytes.NewReader(data), legacy.Options{}), legacy.Conversion{Format: legacy.LibXC, Version: v}); err != nil {
				t.Fatal(err)
			}
		}
		want := bytes.Replace(three.Bytes(), []byte("XENF\x00\x00\x00\x03"), []byte("XENF\x00\x00\x00\x02"), 1)
		want = bytes.Replace(want, []byte{0x10, 0, 0, 0, 0, 0, 0, 0}, nil, 1)
		if !bytes.Equal(two.Bytes(), want) {
			t.Errorf("version 2 differs at %#x", differAt(two.Bytes(), want))
		}
		if r := judge(t, legacytest.Image{Format: legacy.LibXC}, two.Bytes()); !r.Valid && !strings.Contains(r.Error.Reason, "HVM context") {
			t.Error(r.Error.Err())
		}
	}
}
