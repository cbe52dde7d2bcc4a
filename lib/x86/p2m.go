package x86

import (
	"context"
	"errors"
	"fmt"
	"math"

	"xenferry/lib/guest"
)

// p2m is the table of a PV guest from PFN to MFN, in the guest's own memory: leaf frames full of words, found by a tree
// of lists of MFNs or by page tables of their own. The mapping stays open, and the guest changes it meanwhile.
type p2m struct {
	l       *pvLayout
	last    guest.PFN   // the highest PFN it describes
	frames  []guest.PFN // the leaf frames themselves
	mapping *guest.Mapping
	m2p     guest.M2P

	linear     bool
	generation uint64 // of the linear list when it was walked
}

var (
	errNotInP2M = errors.New("is not a frame of the guest's P2M")
	errP2MMoves = errors.New("the guest changed where it is meanwhile")
)

// mfn is the frame of p, as the guest has it: guest.InvalidMFN, or a number with bits of the guest's own, for none.
func (t *p2m) mfn(p guest.PFN) guest.MFN {
	switch {
	case p > t.last:
		return guest.InvalidMFN
	case t.l.width == 8:
		return guest.MFN(loadWord64(t.mapping.Pages[p/512], int(p%512)))
	}
	return t.l.toMFN(uint64(loadWord32(t.mapping.Pages[p/1024], int(p%1024))))
}

// pfn is the inverse. The host's table alone is not trusted: what it holds for frames of others is arbitrary.
func (t *p2m) pfn(m guest.MFN) (guest.PFN, error) {
	if p := t.m2p.PFN(m); p <= t.last && t.mfn(p) == m {
		return p, nil
	}
	return 0, fmt.Errorf("MFN %#x %w", m, errNotInP2M)
}

func (t *p2m) close() error { return t.mapping.Close() }

// walker finds the P2M of one guest.
type walker struct {
	l      *pvLayout
	host   Host
	id     guest.DomID
	m2p    guest.M2P
	shared []byte // the guest's shared_info
	// The end of a P2M whose last frames are one frame again and again, for memory that is not there, is cut off, but
	// never below floor.
	floor guest.PFN
	last  guest.PFN
}

// walk finds the P2M and maps it. errP2MMoves says that the guest changed where it is meanwhile.
func (w *walker) walk(ctx context.Context) (t *p2m, err error) {
	err = guest.Access(func() (err error) {
		generation := w.shared64(w.l.generation)
		t, err = w.find(ctx)
		if now := w.shared64(w.l.generation); now != generation && w.shared64(w.l.p2mCR3) != 0 {
			return errors.Join(fmt.Errorf("%w: generation %d became %d", errP2MMoves, generation, now), err)
		}
		if err == nil {
			t.generation = generation
		}
		return err
	})
	if err != nil {
		if t != nil {
			err = errors.Join(err, t.close())
		}
		return nil, fmt.Errorf("find the P2M of domain %d: %w", w.id, err)
	}
	return t, nil
}

// find is walk without a look at the generation.
func (w *walker) find(ctx context.Context) (*p2m, error) {
	count := w.shared64(w.l.arch) // the field is called max_pfn, but is one more than that
	switch {
	case count == 0:
		return nil, errors.New("shared_info says that the guest has no pages, so it has no P2M yet")
	case count > math.MaxUint32:
		return nil, fmt.Errorf("%#x PFNs: the stream can hold %#x", count, uint32(math.MaxUint32))
	case guest.PFN(count-1) < w.floor:
		return nil, fmt.Errorf("it became shorter while the guest was saved: from %#x PFNs to %#x", w.floor+1, count)
	}
	w.last = guest.PFN(count - 1)
	cr3 := w.shared64(w.l.p2mCR3)
	t := &p2m{l: w.l, m2p: w.m2p, linear: cr3 != 0}
	var leaves []guest.MFN
	var err error
	if t.linear {
		leaves, err = w.walkLinear(ctx, cr3, w.shared64(w.l.p2mAddr))
	} else {
		leaves, err = w.walkTree(ctx, w.l.toMFN(w.shared64(w.l.frameListList)))
	}
	if err != nil {
		return nil, err
	}
	t.last = w.last
	if t.mapping, err = w.mapFrames(ctx, leaves); err != nil {
		return nil, err
	}
	t.frames = make([]guest.PFN, len(leaves))
	err = guest.Access(func() error {
		for i, m := range leaves {
			if t.frames[i], err = t.pfn(m); err != nil {
				return fmt.Errorf("frame %d: %w", i, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// shared64 reads the word at offset off of shared_info, at once.
func (w *walker) shared64(off int) uint64 { return loadGuestWord(w.l, w.shared, off) }

// loadGuestWord reads a word of a page that its guest may write to meanwhile, at once.
func loadGuestWord(l *pvLayout, page []byte, off int) uint64 {
	if l.width == 4 {
		return uint64(loadWord32(page, off/4))
	}
	return loadWord64(page, off/8)
}

// walkTree follows pfn_to_mfn_frame_list_list: a page of MFNs of pages of MFNs of leaf frames.
func (w *walker) walkTree(ctx context.Context, root guest.MFN) ([]guest.MFN, error) {
	perMid := w.l.fpp * w.l.fpp // PFNs below one entry of the root
	mids := uint64(w.last)/perMid + 1
	if mids > w.l.fpp {
		return nil, fmt.Errorf("%#x PFNs are too many for a tree of three levels", uint64(w.last)+1)
	}
	if err := w.check(root); err != nil {
		return nil, fmt.Errorf("frame_list_list: %w", err)
	}
	list, err := w.entries(ctx, []guest.MFN{root}, 0, mids)
	if err != nil {
		return nil, fmt.Errorf("frame_list_list: %w", err)
	}
	// The first of the equal entries is kept.
	w.trim((finalRun(list)+1)*perMid - 1)
	list = list[:uint64(w.last)/perMid+1]
	leaves, err := w.entries(ctx, list, 0, w.l.p2mFrames(w.last))
	if err != nil {
		return nil, fmt.Errorf("frame lists: %w", err)
	}
	return leaves, nil
}

// entries reads count words, from the first-th on, of frames that are one array, and checks that each is a frame.
func (w *walker) entries(ctx context.Context, frames []guest.MFN, first, count uint64) ([]guest.MFN, error) {
	return w.read(ctx, frames, first, count, w.l.fpp, func(page []byte, i int) guest.MFN {
		return w.l.toMFN(loadGuestWord(w.l, page, i*w.l.width))
	})
}

// Xen's own part of a PV guest's address space, where no P2M can be.
const (
	hole64First, hole64Last = 0xFFFF800000000000, 0xFFFF87FFFFFFFFFF
	hole32First             = 0xF5800000
)

// walkLinear finds an array in the guest's virtual address space, from addr on, by the page tables under cr3. Nobody
// looks at their present bits, as a P2M that is used all the time is there.
func (w *walker) walkLinear(ctx context.Context, cr3, addr uint64) ([]guest.MFN, error) {
	if err := w.checkRange(addr); err != nil {
		return nil, err
	}
	mask := uint64(1)<<48 - 1
	if w.l.width == 4 {
		mask = math.MaxUint32
	}
	frames := []guest.MFN{guest.MFN(w.l.cr3Frame(cr3))}
	if err := w.check(frames[0]); err != nil {
		return nil, fmt.Errorf("p2m_cr3 %#x: %w", cr3, err)
	}
	for level := w.l.levels; level >= 1; level-- {
		shift := guest.PageShift + 9*(level-1)
		first := addr & mask >> shift
		end := (addr + w.l.p2mFrames(w.last)<<guest.PageShift - 1) & mask >> shift
		next, err := w.read(ctx, frames, first%entriesPerTable, end-first+1, entriesPerTable, func(page []byte, i int) guest.MFN {
			return guest.MFN(loadWord64(page, i) & pteFrame >> guest.PageShift)
		})
		if err != nil {
			return nil, fmt.Errorf("level %d page tables at %#x: %w", level, addr, err)
		}
		if level == 2 {
			// Unlike in the tree, all of the equal entries are cut off. Stock Xen compares an index from the list's
			// start with one from the table's, and so can lose the end of a list that does not start a table.
			if run := finalRun(next); run != 0 && run != uint64(len(next)-1) {
				w.trim(run*entriesPerTable*w.l.fpp - 1)
				next = next[:(addr+w.l.p2mFrames(w.last)<<guest.PageShift-1)&mask>>shift-first+1]
			}
		}
		frames = next
	}
	return frames, nil
}

// checkRange holds the virtual addresses of a linear P2M against what a guest can have.
func (w *walker) checkRange(addr uint64) error {
	end := addr + w.l.p2mFrames(w.last)<<guest.PageShift - 1
	ok := end > addr
	if w.l.width == 4 {
		ok = ok && end < hole32First
	} else {
		canonical := func(a uint64) bool { return a>>47 == 0 || a>>47 == 1<<17-1 }
		ok = ok && canonical(addr) && canonical(end) && addr>>47 == end>>47 && (end < hole64First || addr > hole64Last)
	}
	if !ok {
		return fmt.Errorf("p2m_vaddr %#x: %#x PFNs from there on reach where no P2M can be", addr, uint64(w.last)+1)
	}
	return nil
}

// trim cuts the P2M off after last.
func (w *walker) trim(last uint64) { w.last = min(w.last, max(guest.PFN(last), w.floor)) }

// finalRun is the index of the first of those entries at the end that are all the same.
func finalRun(list []guest.MFN) uint64 {
	i := len(list) - 1
	for i > 0 && list[i-1] == list[i] {
		i--
	}
	return uint64(i)
}

// read takes count entries, from the first-th on, of frames that are one array of perPage entries each.
func (w *walker) read(ctx context.Context, frames []guest.MFN, first, count, perPage uint64, entry func(page []byte, i int) guest.MFN) ([]guest.MFN, error) {
	m, err := w.mapFrames(ctx, frames)
	if err != nil {
		return nil, err
	}
	list := make([]guest.MFN, count)
	return list, withPages(m, func(pages [][]byte) error {
		for i := range list {
			at := first + uint64(i)
			list[i] = entry(pages[at/perPage], int(at%perPage))
			if err := w.check(list[i]); err != nil {
				return fmt.Errorf("entry %d: %w", at, err)
			}
		}
		return nil
	})
}

// check refuses a number that is no frame of this host.
func (w *walker) check(m guest.MFN) error {
	if m == 0 || uint64(m) >= uint64(len(w.m2p)) {
		return fmt.Errorf("%#x is no frame of this host", m)
	}
	return nil
}

// mapFrames maps frames, all of them or none.
func (w *walker) mapFrames(ctx context.Context, frames []guest.MFN) (*guest.Mapping, error) {
	gfns := make([]guest.GFN, len(frames))
	for i, m := range frames {
		gfns[i] = guest.GFN(m)
	}
	m, err := w.host.Map(ctx, w.id, gfns, guest.ReadOnly)
	if err != nil {
		return nil, err
	}
	if _, err := m.Err(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}
