package verify

import (
	"bytes"
	"fmt"
	"slices"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

type pageEntry = xcstream.PageEntry

// chunkPages is how many pages are read at once: enough to make system calls rare, few enough to stay in the processor's
// cache until they have been looked at.
const chunkPages = 64

// maxRounds is how many rounds are kept; the others are only counted.
const maxRounds = 1000

// pageCounter counts pages by type and round.
type pageCounter struct {
	total *Pages
	types [16]uint64
	round *Round // nil at a border
	next  guest.PFN
	check bool // behind VERIFY
	buf   []byte
	sort  []guest.PFN
}

// border ends a round. Behind VERIFY the next ones are for checking.
func (c *pageCounter) border(verify bool) {
	c.round = nil
	c.check = c.check || verify
}

// pageData takes and checks a PAGE_DATA.
func (x *libxc) pageData() error {
	h, err := x.r.PageData()
	if h == nil || err != nil && !record.IsTolerable(err) {
		return err
	}
	if x.img.MaxPFN != nil {
		for i, e := range h.Entries {
			if uint64(e.PFN()) > *x.img.MaxPFN {
				return fmt.Errorf("%w: entry %d: PFN %#x is above %#x, the last that X86_PV_P2M_FRAMES cover",
					record.ErrValue, i, e.PFN(), *x.img.MaxPFN)
			}
		}
	}
	if x.v.obs != nil {
		if e := x.v.obs.batch(h.Entries, x.r.Offset()); e != nil {
			return e
		}
	}
	round := x.pages.count(x.img, h, x.r.Start())
	zero, e := x.pages.take(x.r, h.Pages)
	round.Zero += zero
	x.pages.total.Zero += zero
	if e != nil && !record.IsTolerable(e) {
		return e
	}
	if err == nil {
		err = e
	}
	if twice := x.pages.twice(h.Entries); twice != guest.InvalidPFN && err == nil {
		err = fmt.Errorf("%w: PFN %#x comes twice", record.ErrUnusual, twice)
	}
	return err
}

// count adds a PAGE_DATA's entries to the totals and to its round, which it returns.
func (c *pageCounter) count(img *Image, h *xcstream.PageDataHeader, offset uint64) *Round {
	first := h.Entries[0].PFN()
	if c.round == nil || first < c.next {
		img.RoundCount++
		round := Round{Offset: offset, Verify: c.check}
		if len(img.Rounds) < maxRounds {
			img.Rounds = append(img.Rounds, round)
			c.round = &img.Rounds[len(img.Rounds)-1]
		} else {
			c.round = &round
		}
	}
	entries, data := uint64(len(h.Entries)), uint64(h.Pages)
	c.round.Entries += entries
	c.round.WithData += data
	c.total.Entries += entries
	c.total.WithData += data
	highest := guest.PFN(c.total.HighestPFN)
	for _, e := range h.Entries {
		c.types[e.Type()]++
		highest = max(highest, e.PFN())
	}
	c.total.HighestPFN = uint64(highest)
	c.next = h.Entries[len(h.Entries)-1].PFN() + 1
	return c.round
}

// histogram is the count of entries by type.
func (c *pageCounter) histogram() []PageCount {
	counts := []PageCount{}
	for t, n := range c.types {
		if n != 0 {
			counts = append(counts, PageCount{guest.PageType(t).String(), n})
		}
	}
	return counts
}

// take takes the pages of a PAGE_DATA and the padding, and returns how many of the pages are all zero.
func (c *pageCounter) take(r *xcstream.Reader, pages int) (zero uint64, err error) {
	for pages > 0 {
		n := min(pages, chunkPages)
		if len(c.buf) < n*guest.PageSize {
			c.buf = make([]byte, n*guest.PageSize)
		}
		chunk := c.buf[:n*guest.PageSize]
		if err := r.ReadFull(chunk); err != nil {
			return zero, err
		}
		for page := range slices.Chunk(chunk, guest.PageSize) {
			if isZero(page) {
				zero++
			}
		}
		pages -= n
	}
	return zero, r.End()
}

var zeroPage [guest.PageSize]byte

// isZero reports whether a page is all zero. Most others show it in the first octets.
func isZero(page []byte) bool {
	return [8]byte(page) == [8]byte{} && bytes.Equal(page, zeroPage[:])
}

// twice returns a PFN that two of the entries have, or InvalidPFN. Savers write PFNs in ascending order: only for others
// is there anything to search.
func (c *pageCounter) twice(entries []pageEntry) guest.PFN {
	ascending := true
	for i := 1; i < len(entries) && ascending; i++ {
		ascending = entries[i].PFN() > entries[i-1].PFN()
	}
	if ascending {
		return guest.InvalidPFN
	}
	c.sort = c.sort[:0]
	for _, e := range entries {
		c.sort = append(c.sort, e.PFN())
	}
	slices.Sort(c.sort)
	for i := 1; i < len(c.sort); i++ {
		if c.sort[i] == c.sort[i-1] {
			return c.sort[i]
		}
	}
	return guest.InvalidPFN
}
