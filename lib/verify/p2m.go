package verify

import (
	"cmp"
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// p2m is what a PV guest's P2M in an image says. Its pages hold machine frame numbers of the host that the image was saved on;
// page tables and vCPU contexts hold PFNs already.
type p2m struct {
	img   *image
	roles map[guest.PFN][]guest.PFN // for each P2M page the first PFNs that it is for; more than one if it is shared
	lost  map[guest.PFN]bool        // PFNs with a page whose entry does not lead to a frame of their own
	mfns  []frameOwner              // by MFN
}

// frameOwner is an MFN and the PFN whose P2M entry it is.
type frameOwner struct {
	mfn guest.MFN
	pfn guest.PFN
}

// newP2M reads the P2M of a PV image.
func newP2M(img *image) (*p2m, error) {
	p := &p2m{img: img, roles: map[guest.PFN][]guest.PFN{}, lost: map[guest.PFN]bool{}}
	for _, place := range slices.Sorted(maps.Keys(img.frames)) {
		frame, first := img.frames[place], guest.PFN(place*img.wordsPerPage())
		p.roles[frame] = append(p.roles[frame], first)
		ref := img.pages.get(frame)
		if !ref.typ().HasData() {
			continue // the difference, if it is one, is that of this page
		}
		page, err := img.page(ref)
		if err != nil {
			return nil, err
		}
		p.addPage(page, first)
	}
	p.invert()
	return p, nil
}

// addPage takes the entries of a P2M page, whose first is that of PFN first. One of a PFN without a page says nothing.
func (p *p2m) addPage(page []byte, first guest.PFN) {
	for i := range p.img.wordsPerPage() {
		pfn := first + guest.PFN(i)
		if uint64(pfn) > p.img.maxPFN || !p.img.pages.get(pfn).typ().Populates() {
			continue
		}
		if mfn, ok := p.img.frameAt(page, i); ok {
			p.mfns = append(p.mfns, frameOwner{mfn, pfn})
		} else {
			p.lost[pfn] = true
		}
	}
}

// invert makes the MFNs searchable; PFNs that share one are lost.
func (p *p2m) invert() {
	slices.SortFunc(p.mfns, func(a, b frameOwner) int { return cmp.Compare(a.mfn, b.mfn) })
	for i := 1; i < len(p.mfns); i++ {
		if p.mfns[i].mfn == p.mfns[i-1].mfn {
			p.lost[p.mfns[i].pfn], p.lost[p.mfns[i-1].pfn] = true, true
		}
	}
}

// frameAt is the frame number in word i of a page, and whether it is one: all ones is none.
func (img *image) frameAt(page []byte, i uint64) (guest.MFN, bool) {
	if img.info.Width == 4 {
		w := binary.LittleEndian.Uint32(page[i*4:])
		return guest.MFN(w), w != 1<<32-1
	}
	w := binary.LittleEndian.Uint64(page[i*8:])
	return guest.MFN(w), w != 1<<64-1
}

// pfn translates an MFN of the saving host.
func (p *p2m) pfn(m guest.MFN) (guest.PFN, bool) {
	i, ok := slices.BinarySearchFunc(p.mfns, m, func(o frameOwner, m guest.MFN) int { return cmp.Compare(o.mfn, m) })
	if !ok {
		return guest.InvalidPFN, false
	}
	return p.mfns[i].pfn, true
}

// tree is the pages that lead to a P2M tree's leaves, from frame_list_list down, with how many words of each are in use:
// one page of frame numbers of pages of frame numbers of P2M pages.
type tree map[guest.PFN]uint64

// tree finds them. It is empty if the guest names none, as one with a linear P2M may.
func (p *p2m) tree() (tree, error) {
	top, ok := p.topOfTree()
	if !ok {
		return nil, nil
	}
	perPage := p.img.wordsPerPage()
	leaves := p.img.maxPFN/perPage + 1
	t := tree{top: (leaves-1)/perPage + 1}
	page, err := p.img.page(p.img.pages.get(top))
	if err != nil {
		return nil, err
	}
	for i := range perPage {
		mfn, _ := p.img.frameAt(page, i)
		mid, ok := p.pfn(mfn)
		if !ok || mid == top || !p.img.pages.get(mid).typ().HasData() {
			continue
		}
		t[mid] = max(t[mid], min(leaves-min(leaves, i*perPage), perPage))
	}
	return t, nil
}

func (p *p2m) topOfTree() (guest.PFN, bool) {
	if p.img.shared == nil {
		return 0, false
	}
	var mfn guest.MFN
	if p.img.info.Width == 4 {
		mfn = guest.MFN(binary.LittleEndian.Uint32(p.img.shared[2320:]))
	} else {
		mfn = guest.MFN(binary.LittleEndian.Uint64(p.img.shared[3096:]))
	}
	if mfn == 0 {
		return 0, false
	}
	top, ok := p.pfn(mfn)
	return top, ok && p.img.pages.get(top).typ().HasData()
}

// p2mCR3 is the offset of arch.p2m_cr3 in a shared_info of a guest of width octets.
func p2mCR3(width uint8) int {
	if width == 4 {
		return 2328
	}
	return 3112
}

// splitCR3 is the frame that a cr3 of a guest of width octets names, and its other bits. 32-bit ones are turned, to reach
// above 4 GiB, and have no other bits.
func splitCR3(width uint8, cr3 uint64) (frame guest.MFN, rest uint64) {
	if width == 4 {
		return guest.MFN(bits.RotateLeft32(uint32(cr3), -guest.PageShift)), 0
	}
	return guest.MFN(cr3 >> guest.PageShift), cr3 & (guest.PageSize - 1)
}

// startInfo is the PFN of the guest's start_info page, from vCPU 0's context.
func (img *image) startInfo() (guest.PFN, bool) {
	basic := img.vcpus[vcpuKey{0, xcstream.TypeX86PVVCPUBasic}]
	switch len(basic) {
	case xcstream.VCPUContextSize64:
		return guest.PFN(binary.LittleEndian.Uint64(basic[616:])), true
	case xcstream.VCPUContextSize32:
		return guest.PFN(binary.LittleEndian.Uint32(basic[524:])), true
	}
	return 0, false
}
