package x86

import (
	"context"
	"errors"
	"fmt"
	"math"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// PVRestore is a PV domain being restored. Its frames are the host's to choose: where each PFN landed is kept here, and
// written into page tables as they arrive, into vCPU contexts and the guest's own P2M at the end.
type PVRestore struct {
	restoring
	l      *pvLayout // nil until X86_PV_INFO
	domain *pvLayout // the domain's when it was opened
	last   guest.PFN
	p2m    []guest.PFN // the frames of the guest's P2M; empty until X86_PV_P2M_FRAMES
	mfns   []guest.MFN // of each PFN, guest.InvalidMFN for none yet
	types  typeMap     // as they came last
	vcpus  []vcpuState
	shared xcstream.SharedInfo
	rings  guest.Rings

	// Of the call that is under way, and of no use after it.
	missing []guest.PFN
	tables  []table
}

// table is a page table of a batch.
type table struct {
	page  []byte
	entry xcstream.PageEntry
}

// pendingMFN stands in for a frame that is being asked for.
const pendingMFN = guest.InvalidMFN - 1

func openPVRestore(ctx context.Context, base restoring) (Target, error) {
	l, err := domainLayout(ctx, base.host, base.info.ID)
	if err != nil {
		return nil, err
	}
	return &PVRestore{restoring: base, domain: l, vcpus: make([]vcpuState, base.info.MaxVCPU+1)}, nil
}

// maxFrames bounds the PFNs that a stream may speak of, as tables are made for them: a guest has a P2M for the most
// memory it may ever get, which kernels allow to be many times what it may have now, and for a hole of 4 GiB.
func (r *PVRestore) maxFrames() uint64 { return min(16*r.info.MaxPages+1<<20, math.MaxUint32) }

// PVInfo makes the domain one of the stream's word size.
func (r *PVRestore) PVInfo(ctx context.Context, info xcstream.PVInfo) error {
	if r.l != nil {
		return fmt.Errorf("%w: a second one", record.ErrOrder)
	}
	l := &pv64
	if info.Width == 4 {
		l = &pv32
	}
	if info.Width != uint8(l.width) || info.Levels != uint8(l.levels) {
		return fmt.Errorf("%w: no guest has words of %d octets and %d levels of page table", record.ErrValue, info.Width, info.Levels)
	}
	if l != r.domain {
		if err := r.host.SetAddressSize(ctx, r.info.ID, 8*l.width); err != nil {
			return err
		}
		// Xen may have moved shared_info to where such a guest can reach it.
		info, err := r.host.Info(ctx, r.info.ID)
		if err != nil {
			return err
		}
		r.info = info
		if r.domain, err = domainLayout(ctx, r.host, r.info.ID); err != nil {
			return err
		}
		if r.domain != l {
			return fmt.Errorf("domain %d has words of %d bits still, not %d", r.info.ID, 8*r.domain.width, 8*l.width)
		}
	}
	r.l = l
	return nil
}

// P2MFrames learns how many PFNs there are and which of them hold the P2M. It may come again, to say more or other.
func (r *PVRestore) P2MFrames(_ context.Context, f xcstream.P2MFrames) error {
	if r.l == nil {
		return fmt.Errorf("%w: no %v came before", record.ErrOrder, xcstream.TypeX86PVInfo)
	}
	if err := f.Check(r.l.width); err != nil {
		return err
	}
	if uint64(f.End) >= r.maxFrames() {
		return fmt.Errorf("end_pfn %#x is out of range: a domain of at most %d pages may have PFNs below %#x", f.End, r.info.MaxPages, r.maxFrames())
	}
	if frames := uint64(f.End) + 1; frames > uint64(len(r.mfns)) {
		r.grow(frames)
	}
	copy(r.p2m[uint64(f.Start)/r.l.fpp:], f.Frames)
	return nil
}

// grow makes the tables of PFNs frames long.
func (r *PVRestore) grow(frames uint64) {
	r.last = guest.PFN(frames - 1)
	r.types.grow(frames)
	mfns := make([]guest.MFN, frames)
	for i := copy(mfns, r.mfns); i < len(mfns); i++ {
		mfns[i] = guest.InvalidMFN
	}
	r.mfns = mfns
	p2m := make([]guest.PFN, r.l.p2mFrames(r.last))
	for i := copy(p2m, r.p2m); i < len(p2m); i++ {
		p2m[i] = guest.InvalidPFN
	}
	r.p2m = p2m
}

// Place populates what is not there yet, keeps the types, and maps the pages with data.
func (r *PVRestore) Place(ctx context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) error {
	r.missing = r.missing[:0]
	for _, e := range entries {
		p, t := e.PFN(), e.Type()
		if err := r.checkEntry(e); err != nil {
			return err
		}
		r.types.set(p, t)
		if t.Populates() {
			r.want(p)
		}
	}
	if err := r.populate(ctx); err != nil {
		return err
	}
	r.gfns = r.gfns[:0]
	for _, e := range entries {
		if e.Type().HasData() {
			r.gfns = append(r.gfns, guest.GFN(r.mfns[e.PFN()]))
		}
	}
	return r.place(ctx, b)
}

// checkEntry refuses what cannot be in this guest.
func (r *PVRestore) checkEntry(e xcstream.PageEntry) error {
	switch {
	case len(r.p2m) == 0:
		return fmt.Errorf("%w: no %v came before", record.ErrOrder, xcstream.TypeX86PVP2MFrames)
	case e.PFN() > r.last:
		return fmt.Errorf("%w: PFN %#x is out of range: the P2M ends at %#x", record.ErrValue, e.PFN(), r.last)
	case e.Type().Level() > r.l.levels:
		return fmt.Errorf("%w: PFN %#x is a page table of level %d, the guest has %d levels", record.ErrValue, e.PFN(), e.Type().Level(), r.l.levels)
	}
	return nil
}

// want adds p to those that populate gives a frame, unless it has one.
func (r *PVRestore) want(p guest.PFN) {
	if r.mfns[p] == guest.InvalidMFN {
		r.mfns[p] = pendingMFN
		r.missing = append(r.missing, p)
	}
}

// populate gives a frame to each of r.missing.
func (r *PVRestore) populate(ctx context.Context) error {
	if len(r.missing) == 0 {
		return nil
	}
	r.gfns = r.gfns[:0]
	for _, p := range r.missing {
		r.gfns = append(r.gfns, guest.GFN(p))
	}
	if err := r.host.Populate(ctx, r.info.ID, r.gfns); err != nil {
		return err
	}
	for i, p := range r.missing {
		m := guest.MFN(r.gfns[i])
		if !r.l.fits(uint64(m)) || uint64(m) > pteFrame>>guest.PageShift {
			return fmt.Errorf("PFN %#x got frame %#x, a number that the guest has no room for", p, m)
		}
		r.mfns[p] = m
	}
	return nil
}

// Placed makes the page tables of the batch this host's and gives the pages back.
func (r *PVRestore) Placed(ctx context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) error {
	err := guest.Access(func() error { return r.localiseTables(ctx, entries, b) })
	return errors.Join(err, b.Close())
}

func (r *PVRestore) localiseTables(ctx context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) error {
	r.findTables(entries, b)
	if len(r.tables) == 0 {
		return nil
	}
	// Tables may come before what they lead to, and what they lead to may never come.
	r.missing = r.missing[:0]
	for _, t := range r.tables {
		err := references(t.page, func(frame uint64) error {
			p := guest.PFN(frame)
			if p > r.last {
				return fmt.Errorf("%w: PFN %#x is out of range: the P2M ends at %#x", record.ErrValue, p, r.last)
			}
			r.want(p)
			return nil
		})
		if err != nil {
			return t.wrap(err)
		}
	}
	if err := r.populate(ctx); err != nil {
		return err
	}
	for _, t := range r.tables {
		if err := localise(t.page, r.frameOf); err != nil {
			return t.wrap(err)
		}
	}
	return nil
}

func (t *table) wrap(err error) error {
	return fmt.Errorf("page table PFN %#x (%v): %w", t.entry.PFN(), t.entry.Type(), err)
}

// frameOf is p's frame, guest.InvalidMFN for none.
func (r *PVRestore) frameOf(p guest.PFN) guest.MFN {
	if p > r.last {
		return guest.InvalidMFN
	}
	return r.mfns[p]
}

// findTables sets r.tables to the page tables of a batch. Of a PFN that is in it twice, both places are the same page,
// and what came later counts.
func (r *PVRestore) findTables(entries []xcstream.PageEntry, b *xcstream.Batch) {
	r.tables = r.tables[:0]
	ascending := true
	next := 0
	for i, e := range entries {
		ascending = ascending && (i == 0 || e.PFN() > entries[i-1].PFN())
		if !e.Type().HasData() {
			continue
		}
		if e.Type().Level() > 0 {
			r.tables = append(r.tables, table{b.Pages[next], e})
		}
		next++
	}
	if ascending || len(r.tables) == 0 {
		return
	}
	latest := make(map[guest.PFN]xcstream.PageEntry, len(entries))
	for _, e := range entries {
		if e.Type().HasData() {
			latest[e.PFN()] = e
		}
	}
	once := r.tables[:0]
	for _, t := range r.tables {
		if e, ok := latest[t.entry.PFN()]; ok && e.Type().Level() > 0 {
			once = append(once, t)
			delete(latest, t.entry.PFN())
		}
	}
	r.tables = once
}

// Compare hands out buffers.
func (r *PVRestore) Compare(_ context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) error {
	for _, e := range entries {
		if err := r.checkEntry(e); err != nil {
			return err
		}
	}
	buffers(entries, b)
	return nil
}

// Compared makes page tables this host's and compares all pages with the domain's.
func (r *PVRestore) Compared(ctx context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) ([]guest.PFN, error) {
	r.gfns = r.gfns[:0]
	for _, e := range entries {
		if !e.Type().HasData() {
			continue
		}
		if e.Type().Level() > 0 {
			// A table that cannot be localised stays as it came, and differs from the domain's.
			_ = localise(b.Pages[len(r.gfns)], r.frameOf)
		}
		r.gfns = append(r.gfns, guest.GFN(r.mfns[e.PFN()]))
	}
	return r.compare(ctx, entries, b)
}

// Record takes X86_TSC_INFO, SHARED_INFO and the records of vCPUs.
func (r *PVRestore) Record(ctx context.Context, t xcstream.Type, body []byte) error {
	c := record.NewCursor(body, record.Lenient)
	switch t {
	case xcstream.TypeX86TSCInfo:
		var tsc xcstream.TSCInfo
		if err := tsc.Decode(c); err != nil {
			return err
		}
		return r.host.SetTSC(ctx, r.info.ID, guest.TSC(tsc))
	case xcstream.TypeSharedInfo:
		return r.shared.Decode(c)
	case xcstream.TypeX86PVVCPUBasic, xcstream.TypeX86PVVCPUExtended, xcstream.TypeX86PVVCPUXSave, xcstream.TypeX86PVVCPUMSRs:
		var v xcstream.VCPU
		if err := v.Decode(c); err != nil {
			return err
		}
		return r.keepVCPU(t, &v)
	}
	return errRecord(t, xcstream.DomainPV)
}

// keepVCPU keeps a part of a vCPU's state until all pages are there.
func (r *PVRestore) keepVCPU(t xcstream.Type, v *xcstream.VCPU) error {
	switch {
	case len(v.Context) == 0:
		return nil // as old savers write for a vCPU that has none
	case r.l == nil:
		return fmt.Errorf("%w: no %v came before", record.ErrOrder, xcstream.TypeX86PVInfo)
	case uint64(v.ID) >= uint64(len(r.vcpus)):
		err := fmt.Errorf("vCPU %d: domain %d has %d", v.ID, r.info.ID, len(r.vcpus))
		if t != xcstream.TypeX86PVVCPUBasic { // which comes first, where the stream is right and the domain has too few
			err = fmt.Errorf("%w: %w", record.ErrValue, err)
		}
		return err
	}
	if err := v.Check(t, r.l.width); err != nil {
		return err
	}
	state := &r.vcpus[v.ID]
	var err error
	switch t {
	case xcstream.TypeX86PVVCPUBasic:
		state.basic = v.Context
	case xcstream.TypeX86PVVCPUExtended:
		// Xen takes the vCPU from the context.
		if len(v.Context) < 8 || le.Uint32(v.Context) != v.ID {
			return fmt.Errorf("%w: the context of %d octets is not vCPU %d's", record.ErrValue, len(v.Context), v.ID)
		}
		state.extended = v.Context
	case xcstream.TypeX86PVVCPUXSave:
		state.xsave = v.Context
	case xcstream.TypeX86PVVCPUMSRs:
		state.msrs, err = v.DecodeMSRs(record.Lenient)
	}
	return err
}

// Close has nothing to give back.
func (r *PVRestore) Close() error { return nil }
