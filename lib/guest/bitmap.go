package guest

import "math/bits"

// Bitmap is a set of frame numbers: frame n is bit n%64 of word n/64, which on x86 is Xen's own log-dirty layout
// (bit n%8 of octet n/8). The length is fixed when made; numbers past it are not in the set.
type Bitmap []uint64

// NewBitmap returns an empty Bitmap with room for frames 0 to n-1.
func NewBitmap(n uint64) Bitmap { return make(Bitmap, (n+63)/64) }

// Set adds n, which must be within the length.
func (b Bitmap) Set(n uint64) { b[n/64] |= 1 << (n % 64) }

// Clear removes n, which must be within the length.
func (b Bitmap) Clear(n uint64) { b[n/64] &^= 1 << (n % 64) }

// Test reports whether n is in the set. Any n is allowed.
func (b Bitmap) Test(n uint64) bool { return n/64 < uint64(len(b)) && b[n/64]>>(n%64)&1 != 0 }

// SetFirst makes b the set of all numbers below n, which must be within the length.
func (b Bitmap) SetFirst(n uint64) {
	for i := range b {
		switch first := uint64(i) * 64; {
		case n >= first+64:
			b[i] = ^uint64(0)
		case n > first:
			b[i] = 1<<(n-first) - 1
		default:
			b[i] = 0
		}
	}
}

// Reset makes b the empty set.
func (b Bitmap) Reset() { clear(b) }

// Or adds all of o, which must not be longer than b.
func (b Bitmap) Or(o Bitmap) {
	for i, w := range o {
		b[i] |= w
	}
}

// Count is how many numbers are in the set.
func (b Bitmap) Count() uint64 {
	n := 0
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return uint64(n)
}

// Next returns the smallest member not below n, and whether there is one.
func (b Bitmap) Next(n uint64) (uint64, bool) {
	i := n / 64
	if i >= uint64(len(b)) {
		return 0, false
	}
	for w := b[i] >> (n % 64) << (n % 64); ; w = b[i] {
		if w != 0 {
			return i*64 + uint64(bits.TrailingZeros64(w)), true
		}
		if i++; i == uint64(len(b)) {
			return 0, false
		}
	}
}

// AppendFrom appends the members from n on to dst, as many as its capacity takes, and returns where to go on.
func AppendFrom[N ~uint64](dst []N, b Bitmap, n uint64) ([]N, uint64) {
	for i := n / 64; i < uint64(len(b)); i++ {
		w := b[i]
		if i == n/64 {
			w = w >> (n % 64) << (n % 64)
		}
		for ; w != 0; w &= w - 1 {
			member := i*64 + uint64(bits.TrailingZeros64(w))
			if len(dst) == cap(dst) {
				return dst, member
			}
			dst = append(dst, N(member))
		}
	}
	return dst, uint64(len(b)) * 64
}
