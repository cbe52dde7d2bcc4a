package x86

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// Source is a domain to be saved: what lib/save asks of a guest, where its methods are explained.
type Source interface {
	Domain() xcstream.DomainHeader
	Static(ctx context.Context) ([]xcstream.Record, error)
	Begin(ctx context.Context) ([]xcstream.Record, error)
	Frames() uint64
	StartLog(ctx context.Context) error
	StopLog(ctx context.Context) error
	Dirty(ctx context.Context, dirty guest.Bitmap, final bool) (uint64, error)
	PeekDirty(ctx context.Context, dirty guest.Bitmap) (uint64, error)
	Load(ctx context.Context, pfns []guest.PFN, b *xcstream.Batch) error
	CheckRunning(ctx context.Context) error
	Suspended(ctx context.Context) ([]xcstream.Record, guest.Bitmap, error)
	End(ctx context.Context) ([]xcstream.Record, error)
	Close() error

	// Alone has StartLog refuse a log of dirty pages that is on, which it else takes from whoever began it.
	Alone()
}

// OpenSave prepares domain id for being saved: a *PVSave or an *HVMSave, by the kind of domain. It changes nothing in
// the domain, which may run.
func OpenSave(ctx context.Context, h Host, id guest.DomID) (Source, error) {
	info, err := h.Info(ctx, id)
	if err != nil {
		return nil, err
	}
	s := saving{host: h, info: info}
	if info.Kind.PV() {
		return openPVSave(ctx, s)
	}
	return openHVMSave(ctx, s)
}

// saving is what saving a domain of any type takes.
type saving struct {
	host   Host
	info   guest.Info
	frames uint64

	// sent is the type in which each page was loaded last. In it, a type that the hypervisor changed without a mark in
	// the log shows when the guest is suspended.
	sent      typeMap
	loaded    bool // anything at all
	alone     bool // see Source
	suspended bool

	asked answers // by the last question for types
	ahead answers // of those what was asked for beyond the last batch
	batch answers // of those what the batch is about that is being loaded
	want  []guest.GFN
}

// answers is the frames that pages in order had when the host was asked for their types, and the types.
type answers struct {
	first guest.PFN
	gfns  []guest.GFN
	types []guest.PageType
}

// cut takes n answers off the front of a, whose pages are in a row.
func (a *answers) cut(n int) answers {
	front := answers{a.first, a.gfns[:n], a.types[:n]}
	*a = answers{a.first + guest.PFN(n), a.gfns[n:], a.types[n:]}
	return front
}

// addressSpace is how a guest type finds and reads the pages of its domain.
type addressSpace interface {
	// gfn is the frame that holds p now, guest.InvalidGFN for none.
	gfn(p guest.PFN) guest.GFN
	// appendGFNs appends the frames of n pages from first on.
	appendGFNs(to []guest.GFN, first guest.PFN, n int) []guest.GFN
	// copyTable copies a page table with the frame numbers in it made PFNs.
	copyTable(dst, src []byte, level int) error
}

// Frames is the length of the guest's physical address space, in pages.
func (s *saving) Frames() uint64 { return s.frames }

// StartLog begins the log of dirty pages.
func (s *saving) StartLog(ctx context.Context) error {
	err := s.host.SetLogDirty(ctx, s.info.ID, true)
	if err == nil {
		return nil
	}
	if s.alone && s.info.Kind != guest.HVM && errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w; if nobody else saves domain %d, who did so was killed, and xc-save --resume %d ends the log", err, s.info.ID, s.info.ID)
	}
	// A log of somebody else's, such as the one for an HVM guest's display, is in the way. It is for its owner to begin it anew.
	if off := s.host.SetLogDirty(ctx, s.info.ID, false); off != nil {
		return err
	}
	return s.host.SetLogDirty(ctx, s.info.ID, true)
}

// Alone implements Source.
func (s *saving) Alone() { s.alone = true }

// StopLog ends the log.
func (s *saving) StopLog(ctx context.Context) error { return s.host.SetLogDirty(ctx, s.info.ID, false) }

// Dirty reads and empties the log.
func (s *saving) Dirty(ctx context.Context, dirty guest.Bitmap, final bool) (uint64, error) {
	return s.host.Dirty(ctx, s.info.ID, s.frames, dirty, true, final)
}

// PeekDirty reads the log and leaves it as it is.
func (s *saving) PeekDirty(ctx context.Context, dirty guest.Bitmap) (uint64, error) {
	return s.host.Dirty(ctx, s.info.ID, s.frames, dirty, false, false)
}

func (s *saving) header(t xcstream.DomainType) xcstream.DomainHeader {
	return xcstream.DomainHeader{Type: t, Xen: s.host.Release()}
}

// grow makes the address space frames long, unless it is already.
func (s *saving) grow(frames uint64) {
	s.frames = max(s.frames, frames)
	s.sent.grow(s.frames)
}

// policy is the records of what the guest may see of its processor. Xen tells it from 4.14 on, which also is when the
// stream got these records.
func (s *saving) policy(ctx context.Context) ([]xcstream.Record, error) {
	if !s.host.Release().AtLeast(4, 14) {
		return nil, nil
	}
	p, err := s.host.CPUPolicy(ctx, s.info.ID)
	if err != nil {
		return nil, err
	}
	var records []xcstream.Record
	if len(p.Leaves) > 0 {
		records = append(records, xcstream.Record{Type: xcstream.TypeX86CPUIDPolicy, Body: xcstream.CPUIDPolicy(p.Leaves)})
	}
	if len(p.MSRs) > 0 {
		records = append(records, xcstream.Record{Type: xcstream.TypeX86MSRPolicy, Body: xcstream.MSRPolicy(p.MSRs)})
	}
	return records, nil
}

// tsc is the record of the domain's time stamp counter.
func (s *saving) tsc(ctx context.Context) (xcstream.Record, error) {
	t, err := s.host.TSC(ctx, s.info.ID)
	return xcstream.Record{Type: xcstream.TypeX86TSCInfo, Body: xcstream.TSCInfo(t)}, err
}

// load sets b to pfns as they are now, found in space. Pages are the guest's own and read only when they are written
// out; page tables are copied to b.Scratch.
func (s *saving) load(ctx context.Context, pfns []guest.PFN, b *xcstream.Batch, space addressSpace) error {
	s.loaded = true
	if err := guest.Access(func() error { return s.findTypes(ctx, pfns, space) }); err != nil { // it reads a P2M
		return err
	}
	plain := s.plain(pfns)
	if plain {
		s.want = s.want[:0]
		if s.batch.types[0].HasData() {
			s.want = append(s.want, s.batch.gfns...)
		}
	} else if err := s.findData(b); err != nil {
		return err
	}
	mapping, err := s.mapData(ctx)
	if err != nil {
		return err
	}
	b.Entries, b.Pages, b.Deferred = slices.Grow(b.Entries[:0], len(pfns))[:len(pfns)], b.Pages[:0], b.Deferred[:0]
	if plain && (mapping == nil || mapping.Errs == nil) {
		s.fillPlain(pfns, b, mapping)
	} else if err := guest.Access(func() error { return s.fill(pfns, b, mapping, space) }); err != nil {
		return errors.Join(err, mapping.Close())
	}
	b.Mapping = mapping
	return nil
}

// plain reports whether the batch is like most: in a row, and all ordinary pages or all holes.
func (s *saving) plain(pfns []guest.PFN) bool {
	t := s.batch.types[0]
	if !isRun(pfns) || t != guest.NoTab && t != guest.XTab {
		return false
	}
	for _, other := range s.batch.types {
		if other != t {
			return false
		}
	}
	return true
}

// isRun reports whether pfns, which ascend, are in a row.
func isRun(pfns []guest.PFN) bool { return pfns[len(pfns)-1]-pfns[0] == guest.PFN(len(pfns)-1) }

// fillPlain is fill for what plain found: a guest's address space has many more holes than pages.
func (s *saving) fillPlain(pfns []guest.PFN, b *xcstream.Batch, mapping *guest.Mapping) {
	t := s.batch.types[0]
	for i, p := range pfns {
		b.Entries[i] = xcstream.NewPageEntry(p, t)
	}
	if mapping != nil {
		b.Pages = append(b.Pages, mapping.Pages...)
	}
	s.sent.setRun(pfns[0], len(pfns), t)
}

// fill sets b from pfns, their types in s.batch and the mapping of those that have data.
func (s *saving) fill(pfns []guest.PFN, b *xcstream.Batch, mapping *guest.Mapping, space addressSpace) error {
	scratch, next := b.Scratch, 0
	for i, p := range pfns {
		t := s.batch.types[i]
		if t.HasData() {
			page, err := mapping.Pages[next], error(nil)
			switch {
			case page == nil:
				err = mapping.Errs[next]
			case t.Level() > 0:
				err = space.copyTable(scratch[:guest.PageSize], page, t.Level())
				page, scratch = scratch[:guest.PageSize], scratch[guest.PageSize:]
			}
			next++
			switch {
			case err == nil:
				b.Pages = append(b.Pages, page)
			case s.suspended:
				return fmt.Errorf("domain %d is suspended, but PFN %#x (frame %#x, %v) cannot be saved: %w", s.info.ID, p, s.batch.gfns[i], t, err)
			default: // it changed after its type was asked for
				t = guest.XTab
				b.Deferred = append(b.Deferred, p)
			}
		}
		s.sent.set(p, t)
		b.Entries[i] = xcstream.NewPageEntry(p, t)
	}
	return nil
}

// findData sets s.want to the frames of the batch that have data, and sees to it that b.Scratch has room for the page
// tables among them.
func (s *saving) findData(b *xcstream.Batch) error {
	tables := 0
	s.want = s.want[:0]
	for i, t := range s.batch.types {
		switch {
		case t.HasData():
			s.want = append(s.want, s.batch.gfns[i])
			if t.Level() > 0 {
				tables++
			}
		case !t.Valid():
			return fmt.Errorf("domain %d: frame %#x has page type %#x, which does not exist", s.info.ID, s.batch.gfns[i], uint8(t))
		}
	}
	if need := tables * guest.PageSize; len(b.Scratch) < need {
		b.Scratch = make([]byte, need)
	}
	return nil
}

// mapData maps s.want. Nil is a mapping of nothing.
func (s *saving) mapData(ctx context.Context) (*guest.Mapping, error) {
	if len(s.want) == 0 {
		return nil, nil
	}
	return s.host.Map(ctx, s.info.ID, s.want, guest.ReadOnly)
}

// typesAtOnce is how many types are asked for with one call where it is known that they are needed: a call to a host
// that is another process costs as much as its thousand frames. A host cuts it as Xen wants.
const typesAtOnce = 1 << 15

// findTypes sets s.batch to pfns' frames and types. Where they are a whole batch in a row, it asks for those of the
// batches after it, too: most rounds send most pages. A type that changes until it is used is no worse than one that
// does so right afterwards; Suspended finds both.
func (s *saving) findTypes(ctx context.Context, pfns []guest.PFN, space addressSpace) error {
	n := len(pfns)
	run := n == xcstream.MaxBatch && isRun(pfns)
	if !run || s.ahead.first != pfns[0] || len(s.ahead.gfns) < n {
		s.asked.gfns = s.asked.gfns[:0]
		if run {
			s.asked.gfns = space.appendGFNs(s.asked.gfns, pfns[0], int(min(typesAtOnce, s.frames-uint64(pfns[0]))))
		} else {
			for _, p := range pfns {
				s.asked.gfns = append(s.asked.gfns, space.gfn(p))
			}
		}
		if err := s.ask(ctx); err != nil {
			return err
		}
		s.ahead = answers{pfns[0], s.asked.gfns, s.asked.types}
	}
	s.batch = s.ahead.cut(n)
	return nil
}

// ask sets s.asked.types to the types of s.asked.gfns.
func (s *saving) ask(ctx context.Context) error {
	a := &s.asked
	a.types = slices.Grow(a.types[:0], len(a.gfns))[:len(a.gfns)]
	s.ahead = answers{} // it is part of what is overwritten
	return s.host.PageTypes(ctx, s.info.ID, a.gfns, a.types)
}
