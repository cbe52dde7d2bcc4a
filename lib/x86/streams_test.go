package x86_test

import (
	"bytes"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// image is what a stream comes to in the end: the last of each page, and the records of state.
type image struct {
	types   map[guest.PFN]guest.PageType // other than guest.XTab
	pages   map[guest.PFN][]byte
	p2m     map[guest.PFN]bool // the frames of the P2M
	last    uint32
	state   map[string][]byte
	basic   []byte // vCPU 0's
	repeats int    // X86_PV_P2M_FRAMES after the first
}

// readImage takes a stream apart.
func readImage(t testing.TB, stream []byte) *image {
	t.Helper()
	im := &image{
		types: map[guest.PFN]guest.PageType{}, pages: map[guest.PFN][]byte{}, p2m: map[guest.PFN]bool{}, state: map[string][]byte{},
	}
	r := xcstream.NewReader(bytes.NewReader(stream), record.Strict, 0)
	if err := r.Headers(); err != nil {
		t.Fatal(err)
	}
	for {
		typ, _, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch typ {
		case xcstream.TypeEnd:
			return im
		case xcstream.TypePageData:
			head, err := r.PageData()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range head.Entries {
				if delete(im.pages, e.PFN()); e.Type() == guest.XTab {
					delete(im.types, e.PFN())
					continue
				}
				im.types[e.PFN()] = e.Type()
				if e.Type().HasData() {
					page := make([]byte, guest.PageSize)
					if err := r.ReadFull(page); err != nil {
						t.Fatal(err)
					}
					im.pages[e.PFN()] = page
				}
			}
			if err := r.End(); err != nil {
				t.Fatal(err)
			}
		default:
			body, err := r.Body()
			if err != nil {
				t.Fatal(err)
			}
			im.take(t, typ, bytes.Clone(body))
		}
	}
}

func (im *image) take(t testing.TB, typ xcstream.Type, body []byte) {
	name := typ.String()
	switch typ {
	case xcstream.TypeX86PVP2MFrames:
		var f xcstream.P2MFrames
		if err := f.Decode(record.NewCursor(body, record.Strict)); err != nil {
			t.Fatal(err)
		}
		if im.last != 0 {
			im.repeats++
		}
		im.last = f.End
		clear(im.p2m)
		for _, p := range f.Frames {
			im.p2m[p] = true
		}
	case xcstream.TypeX86PVVCPUBasic, xcstream.TypeX86PVVCPUExtended, xcstream.TypeX86PVVCPUXSave, xcstream.TypeX86PVVCPUMSRs:
		name += string(rune('0' + body[0]))
		if typ == xcstream.TypeX86PVVCPUBasic && body[0] == 0 {
			im.basic = body[8:]
		}
	}
	im.state[name] = body
}

// compareStreams holds two streams of one domain, which did not run between them, against each other. What is left out
// is what restoring must change: the pages with the source's frame numbers, start_info, and records that stamp time.
func compareStreams(t testing.TB, first, second []byte) {
	t.Helper()
	a, b := readImage(t, first), readImage(t, second)
	startInfo := guest.InvalidPFN
	switch len(a.basic) {
	case 5168:
		startInfo = guest.PFN(leWord(a.basic[616:], 8))
	case 2800:
		startInfo = guest.PFN(leWord(a.basic[524:], 4))
	}
	if a.last != b.last || len(a.p2m) != len(b.p2m) {
		t.Errorf("P2M up to PFN %#x in %d frames, then up to %#x in %d", a.last, len(a.p2m), b.last, len(b.p2m))
	}
	for p, typ := range a.types {
		if got, ok := b.types[p]; !ok || got != typ {
			t.Errorf("PFN %#x: was %v, is %v (%v)", p, typ, got, ok)
		}
		if a.p2m[p] != b.p2m[p] {
			t.Errorf("PFN %#x: in the P2M %v, then %v", p, a.p2m[p], b.p2m[p])
		}
		if !bytes.Equal(a.pages[p], b.pages[p]) && !a.p2m[p] && p != startInfo && !ringPage(a, startInfo, p) {
			t.Errorf("PFN %#x (%v): contents differ", p, typ)
		}
	}
	if len(a.types) != len(b.types) {
		t.Errorf("%d pages, then %d", len(a.types), len(b.types))
	}
	for name, body := range a.state {
		switch name {
		case xcstream.TypeSharedInfo.String(), xcstream.TypeX86TSCInfo.String(), xcstream.TypeX86PVVCPUBasic.String() + "0":
			continue
		}
		if !bytes.Equal(body, b.state[name]) {
			t.Errorf("%s differs", name)
		}
	}
	if len(a.state) != len(b.state) {
		t.Errorf("%d records of state, then %d", len(a.state), len(b.state))
	}
}

// ringPage reports whether p is the page of a ring, which restoring empties for an HVM guest.
func ringPage(im *image, startInfo, p guest.PFN) bool {
	if startInfo != guest.InvalidPFN {
		return false
	}
	var params xcstream.HVMParams
	if params.Decode(record.NewCursor(im.state[xcstream.TypeHVMParams.String()], record.Strict)) != nil {
		return false
	}
	for _, e := range params {
		switch e.Index {
		case 1, 5, 6, 17:
			if guest.PFN(e.Value) == p {
				return true
			}
		}
	}
	return false
}

func leWord(b []byte, width int) (v uint64) {
	for i := width - 1; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	return v
}
