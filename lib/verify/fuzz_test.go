package verify

import (
	"bytes"
	"encoding/json"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"xenferry/lib/guest"
	"xenferry/lib/testkit"
)

// maxAllocated is how many octets verifying an input of n may allocate: some buffers of fixed size, and a multiple of what
// is there, never of what a header claims.
func maxAllocated(n int) uint64 { return 8<<20 + 64*uint64(n) }

// FuzzVerify: no input does harm, takes memory that it has not got, or is valid and yet cut short. What is valid equals itself.
func FuzzVerify(f *testing.F) {
	for _, format := range []string{testkit.LibXC, testkit.LibXL, testkit.XL} {
		vectors, err := testkit.Vectors(format)
		if err != nil {
			f.Fatal(err)
		}
		for _, v := range vectors {
			if len(v.Data) < 1<<16 {
				f.Add(v.Data)
			}
		}
	}
	for _, stream := range smallImages(f) {
		f.Add(stream)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := Verify(bytes.NewReader(in), Options{})
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > maxAllocated(len(in)) {
			t.Errorf("%d octets allocated for an input of %d", n, len(in))
		}
		if r.Octets > uint64(len(in)) || r.Valid != (r.Error == nil) {
			t.Errorf("%d octets of %d taken, valid %v, error %v", r.Octets, len(in), r.Valid, failure(r))
		}
		if err := r.WriteText(io.Discard); err != nil {
			t.Error(err)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
		if !r.Valid {
			return
		}
		c, err := Compare(bytes.NewReader(in), bytes.NewReader(in), Options{})
		if err != nil || !c.Equal {
			t.Errorf("compared with itself: %v, %+v", err, c)
		}
		if cut := verified(t, in[:len(in)-1], Options{}); cut.Valid {
			t.Error("valid without its last octet")
		}
	})
}

// drawImage is a guest of any layout, saved by a host.
func drawImage(t *rapid.T) func(host int) *testImage {
	kind := rapid.SampledFrom(kinds).Draw(t, "kind")
	types := []guest.PageType{guest.NoTab, guest.L1Tab, guest.L2Tab | guest.Pinned, guest.XTab, guest.Broken}
	pages := rapid.MapOfN(rapid.Uint64Range(9, 15), rapid.SampledFrom(types), 0, 7).Draw(t, "pages")
	high := rapid.SliceOfN(rapid.Uint64Range(1000, 1<<40), 0, 5).Draw(t, "high")
	batch := rapid.IntRange(1, 9).Draw(t, "batch")
	return func(host int) *testImage {
		img := kind.image(host)
		img.batch = batch
		for p, typ := range pages {
			page := testPage{typ: typ}
			if typ.HasData() {
				page.data = make([]byte, guest.PageSize)
			}
			img.pages[guest.PFN(p)] = page
		}
		if kind.name == "hvm" {
			for _, p := range high {
				img.pages[guest.PFN(p)] = testPage{guest.NoTab, pattern(byte(p), guest.PageSize)}
			}
		}
		return img
	}
}

// TestAnyImage: images of any layout are valid, their pages are counted right, they equal what another host saves of them, and
// no octet of a page changes unseen.
func TestAnyImage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		image := drawImage(rt)
		a := image(1)
		stream := a.stream(t)
		r := verified(t, stream, Options{Pedantic: true})
		if !r.Valid || r.Warnings.Count != 0 {
			rt.Fatalf("%v, warnings %v", failure(r), r.Warnings.First)
		}
		var data, zero uint64
		for _, p := range a.pages {
			if p.typ.HasData() {
				data++
				if !slices.ContainsFunc(p.data, func(b byte) bool { return b != 0 }) {
					zero++
				}
			}
		}
		got := r.LibXC.Pages
		if got.Entries != uint64(len(a.pages)) || got.WithData != data || got.Zero != zero || r.LibXC.RoundCount != 1 {
			rt.Fatalf("%+v, %d rounds; want %d pages, %d with data, %d zero", got, r.LibXC.RoundCount, len(a.pages), data, zero)
		}
		b := image(2)
		if c := compareStreams(t, stream, b.stream(t)); !c.Equal {
			rt.Fatalf("differences: %+v", c.First)
		}
		pfn := guest.PFN(rapid.SampledFrom([]uint64{0, 1, 2}).Draw(rt, "pfn") + uint64(16*len(a.params)/6))
		b.pages[pfn].data[rapid.IntRange(0, guest.PageSize-1).Draw(rt, "octet")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		c := compareStreams(t, stream, b.stream(t))
		if c.Count != 1 || !strings.HasPrefix(c.First[0].What, pageName(pfn)) {
			rt.Fatalf("PFN %#x changed: %+v", pfn, c.First)
		}
	})
}

// TestAnyMutation: streams with octets changed, cut or repeated anywhere end in a report.
func TestAnyMutation(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		stream := drawImage(rt)(1).stream(t)
		for range rapid.IntRange(1, 5).Draw(rt, "changes") {
			at := rapid.IntRange(0, len(stream)-1).Draw(rt, "at")
			switch rapid.IntRange(0, 2).Draw(rt, "how") {
			case 0:
				stream[at] = rapid.Byte().Draw(rt, "octet")
			case 1:
				stream = slices.Delete(stream, at, min(len(stream), at+rapid.IntRange(1, 16).Draw(rt, "gone")))
			default:
				stream = slices.Insert(stream, at, stream[at:min(len(stream), at+8)]...)
			}
			if len(stream) == 0 {
				return
			}
		}
		r, err := Verify(bytes.NewReader(stream), Options{Layer: LibXC})
		if err != nil || r.Valid != (r.Error == nil) || r.Octets > uint64(len(stream)) {
			rt.Fatalf("%v, %+v", err, r)
		}
		_, err = Compare(bytes.NewReader(stream), bytes.NewReader(stream), Options{})
		if err != nil {
			rt.Fatal(err)
		}
	})
}
