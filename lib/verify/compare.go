package verify

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"xenferry/lib/guest"
)

// Difference is one difference between two images.
type Difference struct {
	What   string `json:"what"`   // a page or a record
	Detail string `json:"detail"` // how it differs, image A before image B
}

// maxDifferences is how many differences are kept; the others are only counted.
const maxDifferences = 100

// Comparison is what Compare found. As JSON its member names are stable, like the Report's.
type Comparison struct {
	Equal bool         `json:"equal"`
	Pages uint64       `json:"pages"` // that either image has
	Count uint64       `json:"count"` // of differences
	First []Difference `json:"first"` // of these, at most 100
	A     *Report      `json:"a"`
	B     *Report      `json:"b"`
}

// Invalid is the error of the first image that is not valid, or nil. Images that are not valid are not compared.
func (c *Comparison) Invalid() error {
	for _, r := range []struct {
		name   string
		report *Report
	}{{"A", c.A}, {"B", c.B}} {
		if !r.report.Valid {
			return fmt.Errorf("image %s: %w", r.name, r.report.Error.Err())
		}
	}
	return nil
}

// Compare holds the domains in two images against each other: the type and contents that every PFN has in the end, and every
// record of state. How pages came, in which rounds and order, is no difference, nor are the layers around the libxc streams,
// their versions and the saver's release. Frame numbers of the hosts, which a PV guest's P2M and what leads to it hold, are
// compared by the PFNs that they stand for in their own image; a P2M entry of a PFN without a page is as good as an invalid
// one. Only what restore must change by its nature is exempt, see exempt.go.
//
// The images are read twice, in order. Memory is 8 octets for each page, and 16 more of a PV guest. The error is that of
// reading.
func Compare(a, b io.ReaderAt, opts Options) (*Comparison, error) {
	c := &comparer{out: &Comparison{First: []Difference{}}}
	var err error
	if c.a, c.out.A, err = loadImage("A", a, opts); err != nil {
		return nil, err
	}
	if c.b, c.out.B, err = loadImage("B", b, opts); err != nil {
		return nil, err
	}
	if c.out.Invalid() != nil {
		return c.out, nil
	}
	if c.a.domain != c.b.domain || c.a.info != c.b.info {
		c.differ("domain", "%v, width %d; %v, width %d", c.a.domain, c.a.info.Width, c.b.domain, c.b.info.Width)
		return c.out, nil
	}
	if err := c.compare(); err != nil {
		return nil, err
	}
	c.out.Equal = c.out.Count == 0
	return c.out, nil
}

// comparer is the state of one Compare.
type comparer struct {
	a, b   *image
	out    *Comparison
	pa, pb *p2m // of PV guests
	ta, tb tree

	special map[guest.PFN][]span // pages that may differ in some octets
}

func (c *comparer) differ(what, format string, args ...any) {
	c.out.Count++
	if len(c.out.First) < maxDifferences {
		c.out.First = append(c.out.First, Difference{what, fmt.Sprintf(format, args...)})
	}
}

func (c *comparer) compare() error {
	c.special = map[guest.PFN][]span{}
	if c.a.info.Width != 0 {
		if err := c.preparePV(); err != nil {
			return err
		}
	}
	for _, index := range exemptParams {
		if pfn := c.a.params[index]; pfn != 0 && pfn == c.b.params[index] {
			c.special[guest.PFN(pfn)] = []span{{size: guest.PageSize}}
		}
	}
	c.state()
	return c.a.pages.union(c.b.pages, c.page)
}

// preparePV reads what translates frame numbers, and finds start_info.
func (c *comparer) preparePV() (err error) {
	if c.pa, err = newP2M(c.a); err != nil {
		return err
	}
	if c.pb, err = newP2M(c.b); err != nil {
		return err
	}
	if c.ta, err = c.pa.tree(); err != nil {
		return err
	}
	if c.tb, err = c.pb.tree(); err != nil {
		return err
	}
	pa, okA := c.a.startInfo()
	if pb, okB := c.b.startInfo(); okA && okB && pa == pb {
		c.special[pa] = pvExempts[c.a.info.Width].startInfo
	}
	return nil
}

// page compares what the images have for a PFN.
func (c *comparer) page(p guest.PFN, inA, inB pageRef) error {
	c.out.Pages++
	if inA.typ() != inB.typ() {
		c.differ(pageName(p), "type %v; %v", inA.typ(), inB.typ())
		return nil
	}
	if !inA.typ().HasData() {
		return nil
	}
	a, err := c.a.page(inA)
	if err != nil {
		return err
	}
	b, err := c.b.page(inB)
	if err != nil {
		return err
	}
	spans, special := c.special[p]
	usedA, treeA := c.ta[p]
	usedB, treeB := c.tb[p]
	switch {
	case special:
		c.octets(pageName(p), without(a, spans), without(b, spans))
	case c.pa != nil && c.pa.roles[p] != nil && c.pb.roles[p] != nil:
		c.p2mPage(p, a, b)
	case treeA && treeB:
		c.treePage(p, max(usedA, usedB), a, b)
	case !bytes.Equal(a, b):
		c.octets(pageName(p), a, b)
	}
	return nil
}

func pageName(p guest.PFN) string { return fmt.Sprintf("page of PFN %#x", p) }

// octets compares octets as they are.
func (c *comparer) octets(what string, a, b []byte) {
	if bytes.Equal(a, b) {
		return
	}
	if len(a) != len(b) {
		c.differ(what, "%d octets; %d", len(a), len(b))
		return
	}
	first, count := -1, 0
	for i := range a {
		if a[i] != b[i] {
			if count++; first < 0 {
				first = i
			}
		}
	}
	end := min(first+8, len(a))
	c.differ(what, "%d octets, the first at %#x: % x; % x", count, first, a[first:end], b[first:end])
}

// p2mPage compares a page of the guest's P2M. An entry says whether its PFN leads to a frame of its own; entries of PFNs that
// have no page in either image say nothing. Behind the last PFN the words are the guest's own.
func (c *comparer) p2mPage(p guest.PFN, a, b []byte) {
	width := uint64(c.a.info.Width)
	for i := range c.a.wordsPerPage() {
		entry := false
		for _, first := range c.pa.roles[p] {
			pfn := first + guest.PFN(i)
			if uint64(pfn) > min(c.a.maxPFN, c.b.maxPFN) {
				continue
			}
			entry = true
			if lostA, lostB := c.pa.lost[pfn], c.pb.lost[pfn]; lostA != lostB {
				c.differ(pageName(p), "P2M entry of PFN %#x leads to it: %v; %v", pfn, !lostA, !lostB)
			}
		}
		if wa, wb := a[i*width:][:width], b[i*width:][:width]; !entry && !bytes.Equal(wa, wb) {
			c.differ(pageName(p), "word %d behind the P2M's end: % x; % x", i, wa, wb)
		}
	}
}

// treePage compares a page of frame numbers that leads to the P2M's leaves. Words that are not in use may also be equal as
// they are: nobody keeps them up to date.
func (c *comparer) treePage(p guest.PFN, used uint64, a, b []byte) {
	for i := range c.a.wordsPerPage() {
		wa, _ := c.a.frameAt(a, i)
		wb, _ := c.b.frameAt(b, i)
		if !c.sameFrame(wa, wb) && (i < used || wa != wb) {
			c.differ(pageName(p), "frame number %d of the P2M tree: %s; %s", i, c.pa.describe(wa), c.pb.describe(wb))
		}
	}
}

// sameFrame reports whether two MFNs, each of its image's host, stand for the same PFN, or are equal and stand for none.
func (c *comparer) sameFrame(a, b guest.MFN) bool {
	pa, okA := c.pa.pfn(a)
	pb, okB := c.pb.pfn(b)
	return okA == okB && (okA && pa == pb || !okA && a == b)
}

// describe says what an MFN stands for.
func (p *p2m) describe(m guest.MFN) string {
	if pfn, ok := p.pfn(m); ok {
		return fmt.Sprintf("MFN %#x (PFN %#x)", m, pfn)
	}
	return fmt.Sprintf("MFN %#x (no PFN's)", m)
}

// word is a little-endian word of width octets at the start of b.
func word(b []byte, width uint8) uint64 {
	if width == 4 {
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}
