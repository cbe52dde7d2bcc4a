package guestos

import (
	"bytes"
	"compress/flate"
	"io"
	"testing"

	"pgregory.net/rapid"

	"xenferry/lib/guest"
)

// TestContents: contents depend on nothing but seed, PFN and version, differ all over the page when one of them does,
// and are told apart by diagnose.
func TestContents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		pfn := guest.PFN(rapid.Uint64Range(0, 1<<30).Draw(t, "pfn"))
		version := rapid.Uint32Range(1, 1<<20).Draw(t, "version")
		texture := rapid.SampledFrom([]Texture{Random, Text, Zero}).Draw(t, "texture")
		page, again, scratch := make([]byte, guest.PageSize), make([]byte, guest.PageSize), make([]byte, guest.PageSize)
		contents(page, seed, pfn, version, texture)
		contents(again, seed, pfn, version, texture)
		if !bytes.Equal(page, again) {
			t.Fatal("the same contents differ")
		}
		for _, other := range []struct {
			seed    uint64
			pfn     guest.PFN
			version uint32
			want    Fault
		}{
			{seed, pfn, version - 1, Stale},
			{seed, pfn, version + 1, Ahead},
			{seed, pfn + 1, version, Foreign},
			{seed + 1, pfn, version, Foreign},
		} {
			contents(again, other.seed, other.pfn, other.version, texture)
			same := 0
			for i := 64; i < guest.PageSize; i += 64 {
				if bytes.Equal(page[i:i+64], again[i:i+64]) {
					same++
				}
			}
			if same > 0 {
				t.Fatalf("%+v: %d parts of 64 octets are the same", other, same)
			}
			want := other.want
			if other.version == 0 {
				want = Lost
			}
			if f := diagnose(again, scratch, seed, pfn, version, texture); f != want {
				t.Fatalf("%+v: %s", other, f)
			}
			cut := rapid.IntRange(1, guest.PageSize/64-1).Draw(t, "cut") * 64
			copy(again[:cut], page[:cut])
			if f := diagnose(again, scratch, seed, pfn, version, texture); f != Torn {
				t.Fatalf("%+v, the first %d octets new: %s", other, cut, f)
			}
		}
	})
}

// TestTextures: a share of pages has each look, and a compressor sees what it should.
func TestTextures(t *testing.T) {
	f := Fill{Zero: 0.25, Text: 0.5}
	n := map[Texture]int{}
	for p := range guest.PFN(20000) {
		n[f.texture(99, p)]++
	}
	if n[Zero] < 4700 || n[Zero] > 5300 || n[Text] < 9600 || n[Text] > 10400 {
		t.Errorf("shares of 20000 pages: %v", n)
	}
	page := make([]byte, guest.PageSize)
	for texture, limit := range map[Texture][2]int{Random: {4000, 5000}, Text: {700, 2400}, Zero: {0, 100}} {
		contents(page, 99, 5, 0, texture)
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, flate.BestSpeed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, bytes.NewReader(page)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if b.Len() < limit[0] || b.Len() > limit[1] {
			t.Errorf("texture %d: a page compresses to %d octets, want %v", texture, b.Len(), limit)
		}
	}
}
