package guest

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestAppendFrom: in batches of any size come the members that Next gives, once each.
func TestAppendFrom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		frames := rapid.Uint64Range(1, 500).Draw(t, "frames")
		b := NewBitmap(frames)
		for range rapid.IntRange(0, 8).Draw(t, "runs") {
			first := rapid.Uint64Range(0, frames-1).Draw(t, "first")
			for n := first; n < first+rapid.Uint64Range(1, frames-first).Draw(t, "n"); n++ {
				b.Set(n)
			}
		}
		var want, got []PFN
		for n, ok := b.Next(0); ok; n, ok = b.Next(n + 1) {
			want = append(want, PFN(n))
		}
		batch := make([]PFN, 0, rapid.IntRange(1, 100).Draw(t, "batch"))
		for next := uint64(0); ; {
			if batch, next = AppendFrom(batch[:0], b, next); len(batch) == 0 {
				break
			}
			got = append(got, batch...)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}
