package verify

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/testkit"
	"xenferry/lib/xcstream"
)

// failure is what a report says is wrong, as the error it was.
func failure(r *Report) error {
	if r.Error == nil {
		return nil
	}
	return r.Error.Err()
}

// TestVectors: pedantic verification ends as strict reading does; otherwise what restore would not see is a warning.
func TestVectors(t *testing.T) {
	// A stream with checkpoints needs the libxl records behind each: as a bare libxc stream it is refused at the first.
	bare := map[string]bool{"checkpoint": true, "checkpoint-optional": true, "checkpoint-incomplete": true}
	vectors, err := testkit.Vectors(testkit.LibXC)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			report, err := Verify(bytes.NewReader(v.Data), Options{Layer: LibXC, Pedantic: true})
			if err != nil {
				t.Fatal(err)
			}
			if bare[v.Name] {
				if report.Valid {
					t.Fatal("a bare libxc stream with checkpoints is valid")
				}
				return
			}
			if err := v.Strict.Check(failure(report)); err != nil {
				t.Error(err)
			}
			report, _ = Verify(bytes.NewReader(v.Data), Options{Layer: LibXC})
			switch tolerable := v.Strict.Kind != nil && record.IsTolerable(v.Strict.Kind); {
			case report.Valid != (v.Strict.Kind == nil || tolerable):
				t.Errorf("not pedantic: %v", failure(report))
			case tolerable && report.Warnings.Count == 0:
				t.Error("not pedantic: no warning")
			}
		})
	}
}

// TestReport: the figures of a stream that was made with them.
func TestReport(t *testing.T) {
	img := newPV(8, 1)
	img.pages[1] = testPage{guest.NoTab, make([]byte, guest.PageSize)}
	img.pages[testAbsent] = testPage{typ: guest.XTab}
	chunks := split(t, img.stream(t))
	for _, e := range []edit{again(xcstream.TypePageData, xcstream.TypeX86TSCInfo), put(xcstream.TypeX86TSCInfo, xcstream.TypeVerify, nil),
		put(xcstream.TypeX86TSCInfo, xcstream.TypePageData, onePage(15))} {
		chunks = e(chunks)
	}
	stream := join(chunks)
	r := verified(t, stream, Options{Pedantic: true})
	x := r.LibXC
	if !r.Valid || r.Octets != uint64(len(stream)) || len(r.Layers()) != 1 || x.Guest != "pv64" || x.Xen != "4.17" || *x.MaxPFN != 15 || x.P2MFrames != 1 {
		t.Errorf("%+v, %+v", r, x)
	}
	if p := x.Pages; p.Entries != 22 || p.WithData != 20 || p.Zero != 2 || p.HighestPFN != 15 {
		t.Errorf("pages: %+v", p)
	}
	if want := []PageCount{{"notab", 19}, {"l4tab+pin", 1}, {"xtab", 2}}; !slices.Equal(x.Pages.Types, want) {
		t.Errorf("types %v, want %v", x.Pages.Types, want)
	}
	if n := x.Rounds; x.RoundCount != 3 || n[0].Entries != 16 || n[1].Entries != 5 || n[1].Zero != 1 || n[2].Entries != 1 || n[1].Verify || !n[2].Verify {
		t.Errorf("rounds %+v", x.Rounds)
	}
	octets := uint64(len(chunks[0].octets))
	for _, row := range x.Records {
		octets += row.Octets
	}
	if octets != r.Octets {
		t.Errorf("the table's records and the headers have %d octets, the stream %d", octets, r.Octets)
	}
	if want := []VCPU{{0, 5168, 64, 16, 16}, {1, 5168, 64, 16, 16}}; !slices.Equal(x.VCPUs, want) {
		t.Errorf("vCPUs %v, want %v", x.VCPUs, want)
	}
}

// TestSources: the stream may come in any portions; not an octet behind END is read if that is asked for; what the source
// itself fails with is not the stream's fault.
func TestSources(t *testing.T) {
	stream := newHVM().stream(t)
	for name, wrap := range map[string]func(io.Reader) io.Reader{"octets": iotest.OneByteReader, "halves": iotest.HalfReader, "EOF with data": iotest.DataErrReader} {
		for _, layer := range []Layer{Auto, LibXC} {
			r, err := Verify(wrap(bytes.NewReader(stream)), Options{Layer: layer})
			if err != nil || !r.Valid || r.Octets != uint64(len(stream)) {
				t.Errorf("%s: %v, %v", name, err, failure(r))
			}
		}
	}
	src := bytes.NewReader(append(bytes.Clone(stream), "GO"...))
	if r, err := Verify(src, Options{AllowTrailing: true}); err != nil || !r.Valid || src.Len() != 2 {
		t.Errorf("%v, %d octets left, want 2", failure(r), src.Len())
	}
	broken := errors.New("disk on fire")
	for n := range 200 {
		n *= len(stream) / 200
		_, err := Verify(io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(broken)), Options{})
		if !errors.Is(err, broken) {
			t.Fatalf("source fails at %d: %v", n, err)
		}
	}
}

// TestDetect: what begins a stream says which it is.
func TestDetect(t *testing.T) {
	rows := []struct {
		name string
		head []byte
		want error
	}{
		{"nothing", nil, record.ErrTruncated},
		{"too little", []byte("Libxl"), record.ErrTruncated},
		{"legacy PV, wide", []byte{0, 0, 2, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, ErrLegacy},
		{"legacy PV, narrow", []byte{0, 0, 2, 0, 0xff, 0xff, 0xff, 0xff, 0x40, 0x14, 0, 0}, ErrLegacy},
		{"legacy HVM, wide", []byte{0, 0, 2, 0, 0, 0, 0, 0, 0xf9, 0xff, 0xff, 0xff}, ErrLegacy},
		{"legacy HVM, narrow", []byte{0, 0, 2, 0, 0xf9, 0xff, 0xff, 0xff}, ErrLegacy},
		{"legacy HVM, narrow, pages first", []byte{0, 0, 2, 0, 0, 4, 0, 0}, ErrLegacy},
		{"text", []byte("Hello, world"), record.ErrValue},
		{"zeros", make([]byte, 64), record.ErrValue},
	}
	for _, row := range rows {
		if err := failure(verified(t, row.head, Options{})); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want: %v", row.name, err, row.want)
		}
	}
}

// smallImages are streams of a page or two, for tests that go through every octet.
func smallImages(t testing.TB) map[string][]byte {
	streams := map[string][]byte{}
	for _, k := range kinds {
		img := k.image(1)
		for p := range img.pages {
			if p != testP2M && p != img.lastPFN() {
				delete(img.pages, p)
			}
		}
		img.pages[testAbsent] = testPage{typ: guest.XTab}
		streams[k.name] = img.stream(t)
		img.version = xcstream.Version2
		streams[k.name+" v2"] = img.stream(t)
	}
	return streams
}

// TestTruncation: no beginning of a stream is one.
func TestTruncation(t *testing.T) {
	for name, stream := range smallImages(t) {
		if !verified(t, stream, Options{}).Valid {
			t.Fatalf("%s: not valid", name)
		}
		step := 1
		if testing.Short() || strings.HasSuffix(name, "v2") {
			step = 13
		}
		for n := 0; n < len(stream); n += step {
			r := verified(t, stream[:n], Options{})
			if err := failure(r); !errors.Is(err, record.ErrTruncated) {
				t.Fatalf("%s: first %d of %d octets: %v", name, n, len(stream), err)
			}
		}
	}
}

// TestBitFlips: a changed bit of the image header is found; one of any header does no harm.
func TestBitFlips(t *testing.T) {
	for name, stream := range smallImages(t) {
		for i, c := range split(t, stream) {
			start := bytes.Index(stream, c.octets)
			length := len(c.octets)
			if i > 0 {
				length = min(length, 2*record.HeaderSize)
			}
			for bit := range length * 8 {
				stream[start+bit/8] ^= 1 << (bit % 8)
				r := verified(t, stream, Options{Pedantic: true})
				if i == 0 && bit/8 < xcstream.ImageHeaderSize && r.Valid && !strings.HasSuffix(name, "v2") {
					t.Errorf("%s: bit %d of the image header changed: valid", name, bit)
				}
				stream[start+bit/8] ^= 1 << (bit % 8)
			}
		}
	}
}

// BenchmarkVerify is the verifier without its input: 32 MiB of pages, in memory.
func BenchmarkVerify(b *testing.B) {
	for name, page := range map[string][]byte{"ordinary": pattern(1, guest.PageSize), "zero": make([]byte, guest.PageSize)} {
		b.Run(name, func(b *testing.B) {
			img := newHVM()
			img.batch = xcstream.MaxBatch
			for p := range guest.PFN(8192) {
				img.pages[p] = testPage{guest.NoTab, page}
			}
			stream := img.stream(b)
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			for b.Loop() {
				if r := verified(b, stream, Options{}); !r.Valid {
					b.Fatal(failure(r))
				}
			}
		})
	}
}
