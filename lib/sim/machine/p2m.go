package machine

import (
	"math/bits"

	"xenferry/lib/guest"
)

// maxGFN bounds guest frame numbers: 48 bits of address.
const maxGFN = 1 << 36

// p2m is an HVM domain's map from GFN to MFN. Its size is that of the parts in use, whatever holes are between.
type p2m struct {
	chunks map[uint64]*[512]guest.MFN // by gfn/512; 0, which no domain owns, is a hole
	max    guest.GFN                  // highest GFN ever mapped, as XENMEM_maximum_gpfn tells
}

// get is the frame behind g, or InvalidMFN.
func (t *p2m) get(g guest.GFN) guest.MFN {
	if c := t.chunks[uint64(g)/512]; c != nil && c[g%512] != 0 {
		return c[g%512]
	}
	return guest.InvalidMFN
}

func (t *p2m) set(g guest.GFN, m guest.MFN) {
	if t.chunks == nil {
		t.chunks = map[uint64]*[512]guest.MFN{}
	}
	c := t.chunks[uint64(g)/512]
	if c == nil {
		c = new([512]guest.MFN)
		t.chunks[uint64(g)/512] = c
	}
	c[g%512] = m
	t.max = max(t.max, g)
}

func (t *p2m) clear(g guest.GFN) {
	if c := t.chunks[uint64(g)/512]; c != nil {
		c[g%512] = 0
	}
}

// leafBits is how many frames one leaf of a dirtySet covers.
const leafBits = guest.PageSize * 8

// dirtySet is a domain's dirty frames by PFN, sparse as Xen's own log is.
type dirtySet struct {
	leaves map[uint64]*[leafBits / 64]uint64
	last   *[leafBits / 64]uint64 // of leaf lastN
	lastN  uint64
}

func newDirtySet() *dirtySet { return &dirtySet{leaves: map[uint64]*[leafBits / 64]uint64{}} }

func (s *dirtySet) leaf(n uint64) *[leafBits / 64]uint64 {
	if s.last == nil || s.lastN != n {
		l := s.leaves[n]
		if l == nil {
			l = new([leafBits / 64]uint64)
			s.leaves[n] = l
		}
		s.last, s.lastN = l, n
	}
	return s.last
}

func (s *dirtySet) set(p guest.PFN) {
	if p < maxGFN {
		s.leaf(uint64(p) / leafBits)[p%leafBits/64] |= 1 << (p % 64)
	}
}

func (s *dirtySet) unset(p guest.PFN) {
	if p < maxGFN {
		s.leaf(uint64(p) / leafBits)[p%leafBits/64] &^= 1 << (p % 64)
	}
}

// read sets b to the members below frames and returns how many there are.
func (s *dirtySet) read(b guest.Bitmap, frames uint64) (count uint64) {
	b.Reset()
	for n, l := range s.leaves {
		for i, w := range l {
			at := n*leafBits + uint64(i)*64
			if w == 0 || at >= frames {
				continue
			}
			if left := frames - at; left < 64 {
				w &= 1<<left - 1
			}
			b[at/64] = w
			count += uint64(bits.OnesCount64(w))
		}
	}
	return count
}

func (s *dirtySet) reset() { clear(s.leaves); s.last = nil }
