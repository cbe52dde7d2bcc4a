package x86

import (
	"bytes"
	"context"
	"fmt"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// HVMRestore is an HVM or PVH domain being restored.
type HVMRestore struct {
	restoring

	// populated is the pages that the domain has, absent those of them whose last entry said that they are not there.
	populated, absent guest.Bitmap

	context []byte // HVM_CONTEXT, loaded when everything else is in place
	rings   guest.Rings
}

// hvmFrames bounds the GFNs that a stream may populate, as their bitmaps grow with them: 1 TiB of address space, which
// leaves room for a display's memory far above RAM, or all RAM that the domain may have and a hole of 4 GiB.
func (r *HVMRestore) hvmFrames() uint64 { return max(1<<28, r.info.MaxPages+1<<20) }

// PVInfo refuses the record.
func (r *HVMRestore) PVInfo(context.Context, xcstream.PVInfo) error {
	return errRecord(xcstream.TypeX86PVInfo, xcstream.DomainHVM)
}

// P2MFrames refuses the record.
func (r *HVMRestore) P2MFrames(context.Context, xcstream.P2MFrames) error {
	return errRecord(xcstream.TypeX86PVP2MFrames, xcstream.DomainHVM)
}

// Place populates what is not there yet and maps the pages with data.
func (r *HVMRestore) Place(ctx context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) error {
	r.gfns = r.gfns[:0]
	for _, e := range entries {
		switch p := e.PFN(); {
		case !e.Type().Populates():
			if r.populated.Test(uint64(p)) {
				r.absent.Set(uint64(p))
			}
		case r.populated.Test(uint64(p)):
			r.absent.Clear(uint64(p))
		default:
			if err := r.mark(p); err != nil {
				return err
			}
			r.gfns = append(r.gfns, guest.GFN(p))
		}
	}
	if len(r.gfns) > 0 {
		if err := r.host.Populate(ctx, r.info.ID, r.gfns); err != nil {
			return err
		}
	}
	r.dataGFNs(entries)
	return r.place(ctx, b)
}

// mark adds p to the populated pages.
func (r *HVMRestore) mark(p guest.PFN) error {
	if uint64(p) >= r.hvmFrames() {
		return fmt.Errorf("%w: PFN %#x is out of range: a domain of at most %d pages may have PFNs below %#x", record.ErrValue, p, r.info.MaxPages, r.hvmFrames())
	}
	if need := uint64(p)/64 + 1; need > uint64(len(r.populated)) {
		grown := guest.NewBitmap(max(2*64*uint64(len(r.populated)), 64*need))
		copy(grown, r.populated)
		gone := make(guest.Bitmap, len(grown))
		copy(gone, r.absent)
		r.populated, r.absent = grown, gone
	}
	r.populated.Set(uint64(p))
	return nil
}

// dataGFNs sets r.gfns to the frames of the entries that have data.
func (r *HVMRestore) dataGFNs(entries []xcstream.PageEntry) {
	r.gfns = r.gfns[:0]
	for _, e := range entries {
		if e.Type().HasData() {
			r.gfns = append(r.gfns, guest.GFN(e.PFN()))
		}
	}
}

// Placed gives the pages back. The domain is paused until this process is done with it.
func (r *HVMRestore) Placed(_ context.Context, _ []xcstream.PageEntry, b *xcstream.Batch) error {
	return b.Leave()
}

// Compare hands out buffers.
func (r *HVMRestore) Compare(_ context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) error {
	buffers(entries, b)
	return nil
}

// Compared compares them with the domain's pages.
func (r *HVMRestore) Compared(ctx context.Context, entries []xcstream.PageEntry, b *xcstream.Batch) ([]guest.PFN, error) {
	r.dataGFNs(entries)
	return r.compare(ctx, entries, b)
}

// Record takes X86_TSC_INFO, HVM_PARAMS and HVM_CONTEXT.
func (r *HVMRestore) Record(ctx context.Context, t xcstream.Type, body []byte) error {
	c := record.NewCursor(body, record.Lenient)
	switch t {
	case xcstream.TypeX86TSCInfo:
		var tsc xcstream.TSCInfo
		if err := tsc.Decode(c); err != nil {
			return err
		}
		return r.host.SetTSC(ctx, r.info.ID, guest.TSC(tsc))
	case xcstream.TypeHVMParams:
		var params xcstream.HVMParams
		if err := params.Decode(c); err != nil {
			return err
		}
		for _, p := range params {
			if err := r.param(ctx, p); err != nil {
				return err
			}
		}
		return nil
	case xcstream.TypeHVMContext:
		if len(body) == 0 {
			return fmt.Errorf("%w: the context is empty", record.ErrLength)
		}
		r.context = bytes.Clone(body)
		return nil
	}
	return errRecord(t, xcstream.DomainHVM)
}

// param sets one parameter. The pages that some of them name hold what the source's other end of a ring left there, so
// they are emptied.
func (r *HVMRestore) param(ctx context.Context, p xcstream.HVMParam) error {
	if p.Index > 1<<32-1 {
		return fmt.Errorf("%w: parameter %#x does not exist", record.ErrValue, p.Index)
	}
	var err error
	switch p.Index {
	case paramPAEEnabled:
		if r.host.Release().AtLeast(4, 14) {
			return nil // gone there; only a hint before
		}
	case paramStorePFN:
		r.rings.Store = guest.GFN(p.Value)
		err = r.emptyPage(ctx, guest.GFN(p.Value), false)
	case paramConsolePFN:
		r.rings.Console = guest.GFN(p.Value)
		err = r.emptyPage(ctx, guest.GFN(p.Value), r.hasConnection())
	case paramIOReqPFN, paramBufIOReqPFN:
		err = r.emptyPage(ctx, guest.GFN(p.Value), false)
	}
	if err != nil {
		return fmt.Errorf("parameter %d names frame %#x: %w", p.Index, p.Value, err)
	}
	return r.host.SetHVMParam(ctx, r.info.ID, uint32(p.Index), p.Value)
}

// emptyPage makes the page at gfn all zero, or a console's ring that nobody listens to. A page that is not there is left
// so: the ring of an emulator that runs is not part of the guest's memory.
func (r *HVMRestore) emptyPage(ctx context.Context, gfn guest.GFN, console bool) error {
	if !r.populated.Test(uint64(gfn)) || r.absent.Test(uint64(gfn)) {
		return nil
	}
	r.gfns = append(r.gfns[:0], gfn)
	m, err := r.mapPages(ctx, guest.ReadWrite)
	if err != nil {
		return err
	}
	return withPages(m, func(pages [][]byte) error {
		clear(pages[0])
		if console {
			pages[0][consoleConnection] = consoleDisconnected
		}
		return nil
	})
}

// Finish takes back what the guest gave up while it was copied, connects it to its event channels, loads its context,
// and lets the control domain have its two rings.
func (r *HVMRestore) Finish(ctx context.Context) (guest.Rings, error) {
	if r.context == nil {
		return guest.Rings{}, fmt.Errorf("%w: %v", record.ErrMissing, xcstream.TypeHVMContext)
	}
	// Stock Xen leaves them, so that the guest has more memory than it had.
	if err := r.depopulate(ctx, r.absent, func(p guest.PFN) guest.GFN { return guest.GFN(p) }); err != nil {
		return guest.Rings{}, err
	}
	for _, p := range []struct{ index, port uint32 }{
		{paramStoreEvtchn, r.info.StoreEvtchn}, {paramConsoleEvtchn, r.info.ConsoleEvtchn},
	} {
		if err := r.host.SetHVMParam(ctx, r.info.ID, p.index, uint64(p.port)); err != nil {
			return guest.Rings{}, err
		}
	}
	if err := r.host.SetHVMContext(ctx, r.info.ID, r.context); err != nil {
		return guest.Rings{}, err
	}
	return r.rings, r.seedGrants(ctx, r.rings)
}

// Close has nothing to give back.
func (r *HVMRestore) Close() error { return nil }
