package xen

import (
	"slices"
	"testing"

	"xenferry/lib/guest"
)

// TestKept: what is kept of a domain goes when that domain shall run, and what would be too much goes at once.
func TestKept(t *testing.T) {
	var gone []int
	k := kept{most: 3, of: map[guest.DomID][][]byte{}, unmap: func(mem []byte) error {
		gone = append(gone, len(mem))
		return nil
	}}
	try := func(what string, do func() error, lengths ...int) {
		t.Helper()
		gone = nil
		if err := do(); err != nil || !slices.Equal(gone, lengths) {
			t.Errorf("%s: %v, and mappings of %v octets are gone, want %v", what, err, gone, lengths)
		}
	}
	add := func(id guest.DomID, octets int) func() error {
		return func() error { return k.add(id, make([]byte, octets)) }
	}
	drop := func(id guest.DomID) func() error { return func() error { return k.drop(id) } }
	try("the first", add(1, 10))
	try("the second", add(1, 11))
	try("the last that may be", add(2, 20))
	try("one more", add(1, 12), 12)
	try("domain 1 shall run", drop(1), 10, 11)
	try("again", drop(1))
	try("there is room", add(2, 21))
	try("domain 2 shall run", drop(2), 20, 21)
}
