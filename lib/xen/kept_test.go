package xen

import (
	"slices"
	"testing"

	"xenferry/lib/guest"
)

// TestKept: what is kept of a domain goes when that domain shall run, and what would be too much goes at once.
func TestKept(t *testing.T) {
	var gone []int
	k := kept{most: 10, of: map[guest.DomID][][]byte{}, unmap: func(mem []byte) error {
		gone = append(gone, len(mem)/guest.PageSize)
		return nil
	}}
	want := func(what string, pages int, lengths ...int) {
		t.Helper()
		if !slices.Equal(gone, lengths) || k.pages != pages {
			t.Errorf("%s: mappings of %v pages are gone, want %v; %d pages are kept, want %d", what, gone, lengths, k.pages, pages)
		}
		gone = nil
	}
	add := func(id guest.DomID, pages int) {
		t.Helper()
		if err := k.add(id, make([]byte, pages*guest.PageSize)); err != nil {
			t.Error(err)
		}
	}
	drop := func(id guest.DomID) {
		t.Helper()
		if err := k.drop(id); err != nil {
			t.Error(err)
		}
	}
	add(1, 2)
	add(1, 5)
	add(2, 1)
	want("as much as may be", 8)
	add(1, 3)
	want("more than may be", 8, 3)
	add(2, 2)
	want("just as much as may be", 10)
	drop(1)
	want("domain 1 shall run", 3, 2, 5)
	drop(1)
	want("again", 3)
	drop(2)
	want("domain 2 shall run", 0, 1, 2)
}
