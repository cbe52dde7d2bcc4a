package guestos

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"xenferry/lib/guest"
)

var le = binary.LittleEndian

// A stamp opens every page that the guest filled, except zero pages. It tells whose page it is, so that a page found
// in the wrong place or in the wrong state can be named:
//
//	 0  magic    u64  stampMagic
//	 8  seed     u64  the guest's seed
//	16  pfn      u64  where the page belongs
//	24  version  u32  how many times the page had been written; 0 is the fill from before the first write
//	28  texture  u32
//
// The octets behind it are a function of seed, PFN and version over the whole rest of the page.
const (
	stampMagic = 0x6567615079727265
	stampSize  = 32
)

// Texture is the look of a page's contents, for those who compress it.
type Texture uint32

// The textures. Only the fill can be Zero; a page of that texture becomes Random by its first write.
const (
	Random Texture = iota
	Text
	Zero
)

// Fill is how the pages of a new guest look, as shares from 0 to 1 of all pages; the rest is random octets.
type Fill struct {
	Zero float64 `json:"zero"`
	Text float64 `json:"text"`
}

// texture is the look of page p: fixed for a guest, scattered over its pages.
func (f Fill) texture(seed uint64, p guest.PFN) Texture {
	u := float64(mix(seed^0x7465787475726500, uint64(p))>>11) / (1 << 53)
	switch {
	case u < f.Zero:
		return Zero
	case u < f.Zero+f.Text:
		return Text
	}
	return Random
}

// contents fills page with what page p holds at a version.
func contents(page []byte, seed uint64, p guest.PFN, version uint32, t Texture) {
	if t == Zero {
		if version == 0 {
			clear(page)
			return
		}
		t = Random
	}
	le.PutUint64(page, stampMagic)
	le.PutUint64(page[8:], seed)
	le.PutUint64(page[16:], uint64(p))
	le.PutUint32(page[24:], version)
	le.PutUint32(page[28:], uint32(t))
	state := mix(mix(seed, uint64(p)), uint64(version))
	if t == Text {
		fillText(page[stampSize:], state)
		return
	}
	fillRandom(page[stampSize:], state)
}

// fillRandom fills b, a multiple of 32 octets, with incompressible octets: a Weyl sequence through one multiplication,
// cheap because the guest's speed must not limit what is measured.
func fillRandom(b []byte, state uint64) {
	const ( // multiples modulo 2^64
		weyl  = 0x9E3779B97F4A7C15
		weyl2 = 0x3C6EF372FE94F82A
		weyl3 = 0xDAA66D2C7DDF743F
		weyl4 = 0x78DDE6E5FD29F054
	)
	for ; len(b) >= 32; b = b[32:] {
		le.PutUint64(b, scramble(state))
		le.PutUint64(b[8:], scramble(state+weyl))
		le.PutUint64(b[16:], scramble(state+weyl2))
		le.PutUint64(b[24:], scramble(state+weyl3))
		state += weyl4
	}
}

// scramble makes octets of one counter value that a compressor finds nothing in.
func scramble(x uint64) uint64 {
	hi, lo := bits.Mul64(x^0xD6E8FEB86659FD93, 0xA0761D6478BD642F)
	return hi ^ lo
}

// mix is a hash of two words.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0xE7037ED1A0B428DB, b^0x8EBC6AF09C88C6E3)
	x := hi ^ lo
	x ^= x >> 32
	x *= 0xD6E8FEB86659FD93
	return x ^ x>>32
}

// lines are what text pages are made of: 64 of lineLen octets, about as compressible as logs and sources.
const lineLen = 48

var lines = func() (l [64][lineLen]byte) {
	words := bytes.Fields([]byte("the kernel maps a frame for each page of memory and domain of this host when an event " +
		"channel is bound to vcpu 0 error: device not ready after timeout info: request served in ms from cache GET /index " +
		"return value if err != nil { static inline unsigned long int struct page table entry void"))
	state := uint64(0x6c696e6573)
	for i := range l {
		line := l[i][:0]
		for len(line) < lineLen {
			state = mix(state, uint64(i))
			line = append(append(line, words[state%uint64(len(words))]...), ' ')
		}
		copy(l[i][:], line[:lineLen-1])
		l[i][lineLen-1] = '\n'
	}
	return l
}()

// fillText fills b with lines chosen by state, each with a number of its own so that any two pages differ everywhere.
func fillText(b []byte, state uint64) {
	const digits = "0123456789abcdef"
	for len(b) > 0 {
		state = mix(state, uint64(len(b)))
		n := copy(b, lines[state>>58][:])
		for i, s := 0, state; i < 8 && i < n; i, s = i+1, s>>4 {
			b[i] = digits[s&15]
		}
		b = b[n:]
	}
}

// Fault says in which way a page is not what it should be.
type Fault string

// The faults of pages.
const (
	Lost    Fault = "lost"    // holds what it held before its first write, or nothing
	Stale   Fault = "stale"   // holds an older version, whole
	Ahead   Fault = "ahead"   // holds a newer version than the guest's records know of, whole
	Torn    Fault = "torn"    // holds parts of this page's contents and others
	Foreign Fault = "foreign" // holds another page, or another guest's
	Corrupt Fault = "corrupt" // none of the above
	Missing Fault = "missing" // has no frame, or a frame that is not the guest's
	Altered Fault = "altered" // a page of the guest's kernel that is not what it was
)

// diagnose names what is wrong with page, which should hold contents version of page p but does not. scratch is a page.
func diagnose(page, scratch []byte, seed uint64, p guest.PFN, version uint32, t Texture) Fault {
	if version > 0 {
		contents(scratch, seed, p, 0, t)
		if bytes.Equal(page, scratch) || !bytes.ContainsFunc(page, func(r rune) bool { return r != 0 }) {
			return Lost
		}
	}
	if le.Uint64(page) == stampMagic {
		at, of, v := le.Uint64(page[16:]), le.Uint64(page[8:]), le.Uint32(page[24:])
		if of != seed || at != uint64(p) {
			return Foreign
		}
		if contents(scratch, seed, p, v, t); bytes.Equal(page, scratch) {
			if v < version {
				return Stale
			}
			return Ahead
		}
		return Torn
	}
	contents(scratch, seed, p, version, t)
	for i := 0; i < len(page); i += 512 {
		if bytes.Equal(page[i:i+512], scratch[i:i+512]) {
			return Torn
		}
	}
	return Corrupt
}
