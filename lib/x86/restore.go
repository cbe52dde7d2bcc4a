package x86

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// Target is a domain being restored: what lib/restore asks of a guest, where its methods are explained.
type Target interface {
	PVInfo(ctx context.Context, info xcstream.PVInfo) error
	P2MFrames(ctx context.Context, frames xcstream.P2MFrames) error
	StaticEnd(ctx context.Context, policy guest.CPUPolicy) error
	Place(ctx context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) error
	Placed(ctx context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) error
	Compare(ctx context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) error
	Compared(ctx context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) (differ []guest.PFN, err error)
	Record(ctx context.Context, t xcstream.Type, body []byte) error
	Finish(ctx context.Context) (guest.Rings, error)
	Close() error
}

// OpenRestore prepares domain id, new and paused, for being filled from a stream with domain header d: a *PVRestore or
// an *HVMRestore, by the kind of domain. It refuses a domain of another type than the stream's.
func OpenRestore(ctx context.Context, h Host, id guest.DomID, d xcstream.DomainHeader) (Target, error) {
	info, err := h.Info(ctx, id)
	if err != nil {
		return nil, err
	}
	want := xcstream.DomainHVM
	if info.Kind.PV() {
		want = xcstream.DomainPV
	}
	if d.Type != want {
		return nil, fmt.Errorf("the stream holds an %v domain, domain %d is %v", d.Type, id, info.Kind)
	}
	r := restoring{host: h, info: info}
	if info.Kind.PV() {
		return openPVRestore(ctx, r)
	}
	return &HVMRestore{restoring: r}, nil
}

// restoring is what restoring a domain of any type takes.
type restoring struct {
	host Host
	info guest.Info

	// Of the call that is under way, and of no use after it.
	gfns []guest.GFN
}

// StaticEnd gives the domain what the stream says of its processor.
func (r *restoring) StaticEnd(ctx context.Context, policy guest.CPUPolicy) error {
	if len(policy.Leaves) == 0 && len(policy.MSRs) == 0 {
		return nil
	}
	return r.host.SetCPUPolicy(ctx, r.info.ID, policy)
}

// mapPages maps the frames in r.gfns, all of them or none.
func (r *restoring) mapPages(ctx context.Context, prot guest.Prot) (*guest.Mapping, error) {
	m, err := r.host.Map(ctx, r.info.ID, r.gfns, prot)
	if err != nil {
		return nil, err
	}
	if _, err := m.Err(); err != nil {
		_ = m.Close() // the page's error is the one that counts
		return nil, err
	}
	return m, nil
}

// withPages calls f with the pages of a mapping and gives them back. A page that is gone is an error.
func withPages(m *guest.Mapping, f func(pages [][]byte) error) error {
	err := guest.Access(func() error { return f(m.Pages) })
	return errors.Join(err, m.Close())
}

// place maps the frames in r.gfns as the pages of b.
func (r *restoring) place(ctx context.Context, b *xcstream.Batch) error {
	b.Pages, b.Mapping = b.Pages[:0], nil
	if len(r.gfns) == 0 {
		return nil
	}
	m, err := r.mapPages(ctx, guest.ReadWrite)
	if err != nil {
		return err
	}
	b.Pages, b.Mapping = append(b.Pages, m.Pages...), m
	return nil
}

// buffers sets b.Pages to memory of our own for each of entries that has data.
func buffers(entries []xcstream.PageEntry, b *xcstream.Batch) {
	pages := 0
	for _, e := range entries {
		if e.Type().HasData() {
			pages++
		}
	}
	if need := pages * guest.PageSize; len(b.Scratch) < need {
		b.Scratch = make([]byte, need)
	}
	b.Pages, b.Mapping = b.Pages[:0], nil
	for i := range pages {
		b.Pages = append(b.Pages, b.Scratch[i*guest.PageSize:][:guest.PageSize])
	}
}

// compare returns which of entries with data differ from the domain's page in r.gfns, whose order is theirs;
// guest.InvalidGFN is a page that the domain does not have.
func (r *restoring) compare(ctx context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) (differ []guest.PFN, err error) {
	if len(r.gfns) == 0 {
		return nil, nil
	}
	m, err := r.host.Map(ctx, r.info.ID, r.gfns, guest.ReadOnly)
	if err != nil {
		return nil, err
	}
	err = withPages(m, func(pages [][]byte) error {
		next := 0
		for _, e := range entries {
			if !e.Type().HasData() {
				continue
			}
			if page := pages[next]; page == nil || !bytes.Equal(page, b.Pages[next]) {
				differ = append(differ, e.PFN())
			}
			next++
		}
		return nil
	})
	return differ, err
}

// A console's ring tells from 4.21 on whether somebody listens (xen/include/public/io/console.h, connection).
const (
	consoleConnection   = 3088 // an octet
	consoleDisconnected = 1
)

// hasConnection reports whether this host's consoles have that octet.
func (r *restoring) hasConnection() bool { return r.host.Release().AtLeast(4, 21) }

// errRecord is a record that has no place in a domain of this type.
func errRecord(t xcstream.Type, d xcstream.DomainType) error {
	return fmt.Errorf("%w: %v has no place in the stream of an %v domain", record.ErrOrder, t, d)
}

// depopulate takes back the pages in set, whose frames gfn tells.
func (r *restoring) depopulate(ctx context.Context, set guest.Bitmap, gfn func(guest.PFN) guest.GFN) error {
	flush := func() error {
		if len(r.gfns) == 0 {
			return nil
		}
		err := r.host.Depopulate(ctx, r.info.ID, r.gfns)
		r.gfns = r.gfns[:0]
		return err
	}
	r.gfns = r.gfns[:0]
	for n, ok := set.Next(0); ok; n, ok = set.Next(n + 1) {
		r.gfns = append(r.gfns, gfn(guest.PFN(n)))
		if len(r.gfns) == xcstream.MaxBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// seedGrants writes the grants of the rings that there are.
func (r *restoring) seedGrants(ctx context.Context, rings guest.Rings) error {
	for _, f := range []*guest.GFN{&rings.Console, &rings.Store} {
		if *f == 0 {
			*f = guest.InvalidGFN
		}
	}
	return r.host.SeedGrants(ctx, r.info.ID, rings.Console, rings.Store)
}
