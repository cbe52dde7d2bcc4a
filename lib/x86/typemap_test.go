package x86

import (
	"testing"

	"pgregory.net/rapid"

	"xenferry/lib/guest"
)

// TestTypeMapRuns: single pages, runs and blocks tell the same as a list of types does.
func TestTypeMapRuns(t *testing.T) {
	some := []guest.PageType{guest.NoTab, guest.XTab, guest.L1Tab, guest.L4Tab | guest.Pinned, guest.Broken}
	rapid.Check(t, func(t *rapid.T) {
		var m typeMap
		frames := rapid.Uint64Range(1, 3000).Draw(t, "frames")
		m.grow(frames)
		want := make([]guest.PageType, frames)
		for i := range want {
			want[i] = guest.XTab
		}
		for range rapid.IntRange(0, 6).Draw(t, "runs") {
			first := rapid.IntRange(0, len(want)-1).Draw(t, "first")
			n := rapid.IntRange(1, len(want)-first).Draw(t, "n")
			of := rapid.SampledFrom(some).Draw(t, "type")
			m.setRun(guest.PFN(first), n, of)
			for i := first; i < first+n; i++ {
				want[i] = of
			}
		}
		p := rapid.IntRange(0, len(want)-1).Draw(t, "page")
		want[p] = guest.NoTab
		m.set(guest.PFN(p), want[p])
		const block = 512
		for first := 0; first < len(want); first += block {
			end, pages := min(first+block, len(want)), 0
			for i := first; i < end; i++ {
				if got := m.get(guest.PFN(i)); got != want[i] {
					t.Fatalf("PFN %d is %v, want %v", i, got, want[i])
				}
				if want[i].HasData() {
					pages++
				}
			}
			if got := m.pages(uint64(first), uint64(end)); got != uint64(pages) {
				t.Fatalf("%d pages from %d to %d, want %d", got, first, end, pages)
			}
		}
	})
}
