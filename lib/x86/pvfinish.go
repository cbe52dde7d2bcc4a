package x86

import (
	"context"
	"fmt"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// Finish completes the domain: vCPU contexts go in before page tables are pinned, as Xen validates the roots with them;
// the P2M is written when all frames are certain.
func (r *PVRestore) Finish(ctx context.Context) (guest.Rings, error) {
	if err := r.complete(); err != nil {
		return guest.Rings{}, err
	}
	for n := range r.vcpus {
		if err := r.loadVCPU(ctx, uint32(n), &r.vcpus[n]); err != nil {
			return guest.Rings{}, err
		}
	}
	for _, step := range []func(context.Context) error{r.pin, r.release, r.setSharedInfo, r.writeP2M, r.disconnectConsole} {
		if err := step(ctx); err != nil {
			return guest.Rings{}, err
		}
	}
	return r.rings, r.seedGrants(ctx, r.rings)
}

// complete refuses a stream that lacks something.
func (r *PVRestore) complete() error {
	var lacking xcstream.Type
	switch {
	case r.l == nil:
		lacking = xcstream.TypeX86PVInfo
	case len(r.p2m) == 0:
		lacking = xcstream.TypeX86PVP2MFrames
	case r.shared == nil:
		lacking = xcstream.TypeSharedInfo
	case len(r.vcpus) == 0 || r.vcpus[0].basic == nil:
		return fmt.Errorf("%w: %v of vCPU 0", record.ErrMissing, xcstream.TypeX86PVVCPUBasic)
	default:
		return nil
	}
	return fmt.Errorf("%w: %v", record.ErrMissing, lacking)
}

// frame is the frame of a page that must be there.
func (r *PVRestore) frame(p guest.PFN) (guest.MFN, error) {
	switch m := r.frameOf(p); {
	case p > r.last:
		return 0, fmt.Errorf("%w: PFN %#x is out of range: the P2M ends at %#x", record.ErrValue, p, r.last)
	case m == guest.InvalidMFN || !r.types.get(p).Populates():
		return 0, fmt.Errorf("%w: PFN %#x is not in the stream", record.ErrValue, p)
	default:
		return m, nil
	}
}

// ordinary is the frame of a page that must be neither absent nor a page table.
func (r *PVRestore) ordinary(p guest.PFN) (guest.MFN, error) {
	m, err := r.frame(p)
	if t := r.types.get(p); err == nil && t != guest.NoTab {
		return 0, fmt.Errorf("%w: PFN %#x is %v, not %v", record.ErrValue, p, t, guest.NoTab)
	}
	return m, err
}

// root is the frame of a page that must be a page table of the highest level.
func (r *PVRestore) root(p guest.PFN) (guest.MFN, error) {
	m, err := r.frame(p)
	if t := r.types.get(p); err == nil && t.Level() != r.l.levels {
		return 0, fmt.Errorf("%w: PFN %#x is %v, not a page table of level %d", record.ErrValue, p, t, r.l.levels)
	}
	return m, err
}

// pin pins the page tables that were pinned.
func (r *PVRestore) pin(ctx context.Context) error {
	const batch = 1024
	ops := make([]guest.PinOp, 0, batch)
	for p := guest.PFN(0); p <= r.last; p++ {
		t := r.types.get(p)
		if !t.IsPinned() {
			continue
		}
		if ops = append(ops, guest.PinOp{MFN: r.mfns[p], Level: t.Level()}); len(ops) == batch {
			if err := r.host.Pin(ctx, r.info.ID, ops); err != nil {
				return err
			}
			ops = ops[:0]
		}
	}
	if len(ops) == 0 {
		return nil
	}
	return r.host.Pin(ctx, r.info.ID, ops)
}

// release takes back frames of pages that are not there in the end: they were sent, or a page table led to them, before
// the guest gave them up. Stock Xen leaves them in the P2M, where the guest loses them for good. What page tables lead to
// even now stays, as does with stock Xen the frame of a broken page.
func (r *PVRestore) release(ctx context.Context) error {
	spare := guest.NewBitmap(uint64(r.last) + 1)
	found := false
	for p, m := range r.mfns {
		if m != guest.InvalidMFN && !r.types.get(guest.PFN(p)).Populates() {
			spare.Set(uint64(p))
			found = true
		}
	}
	if !found {
		return nil
	}
	if err := r.keepReferenced(ctx, spare); err != nil {
		return err
	}
	if err := r.depopulate(ctx, spare, func(p guest.PFN) guest.GFN { return guest.GFN(r.mfns[p]) }); err != nil {
		return err
	}
	for n, ok := spare.Next(0); ok; n, ok = spare.Next(n + 1) {
		r.mfns[n] = guest.InvalidMFN
	}
	return nil
}

// keepReferenced removes from spare what page tables lead to.
func (r *PVRestore) keepReferenced(ctx context.Context, spare guest.Bitmap) error {
	m2p, err := r.host.M2P(ctx)
	if err != nil {
		return err
	}
	for p := guest.PFN(0); p <= r.last; {
		r.gfns = r.gfns[:0]
		for ; p <= r.last && len(r.gfns) < xcstream.MaxBatch; p++ {
			if r.types.get(p).Level() > 0 {
				r.gfns = append(r.gfns, guest.GFN(r.mfns[p]))
			}
		}
		if len(r.gfns) == 0 {
			return nil
		}
		mapping, err := r.mapPages(ctx, guest.ReadOnly)
		if err != nil {
			return fmt.Errorf("page tables: %w", err)
		}
		err = withPages(mapping, func(pages [][]byte) error {
			for _, page := range pages {
				_ = references(page, func(frame uint64) error {
					if to := m2p.PFN(guest.MFN(frame)); to <= r.last && r.mfns[to] == guest.MFN(frame) {
						spare.Clear(uint64(to))
					}
					return nil
				})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// setSharedInfo fills the domain's shared_info from the stream's: the vCPUs' parts and the architecture's, with no
// event pending and all masked. Time is the hypervisor's own.
func (r *PVRestore) setSharedInfo(ctx context.Context) error {
	l, src := r.l, r.shared
	l.putWord(src, l.frameListList, 0) // the guest makes the tree anew when it resumes
	if err := r.localiseP2MRoot(ctx); err != nil {
		return err
	}
	r.gfns = append(r.gfns[:0], guest.GFN(r.info.SharedInfo))
	mapping, err := r.mapPages(ctx, guest.ReadWrite)
	if err != nil {
		return fmt.Errorf("shared_info: %w", err)
	}
	return withPages(mapping, func(pages [][]byte) error {
		dst := pages[0]
		copy(dst[:vcpuInfos*vcpuInfoSize], src)
		for i := range vcpuInfos {
			l.putWord(dst, i*vcpuInfoSize+l.pendingSel, 0)
		}
		clear(dst[l.evtchnPending:][:l.evtchnSize])
		for i := range dst[l.evtchnMask:][:l.evtchnSize] {
			dst[l.evtchnMask+i] = 0xFF
		}
		copy(dst[l.arch:][:l.archSize], src[l.arch:])
		return nil
	})
}

// localiseP2MRoot gives p2m_cr3 in the stream's shared_info the frame of this host. Stock Xen leaves the source's there,
// for the guest to set it when it resumes; but a domain that has not run yet then cannot be saved again. Only the P2M
// that the guest had on the source, in its pages until writeP2M, tells which PFN that was; if it does not, the root stays.
func (r *PVRestore) localiseP2MRoot(ctx context.Context) error {
	l := r.l
	cr3 := l.word(r.shared, l.p2mCR3)
	if cr3 == 0 {
		return nil
	}
	old := l.cr3Frame(cr3)
	root := guest.InvalidPFN
	err := r.eachP2MPage(ctx, guest.ReadOnly, func(page []byte, first guest.PFN, count int) {
		for i := 0; i < count && root == guest.InvalidPFN; i++ {
			if l.word(page, i*l.width) == old {
				root = first + guest.PFN(i)
			}
		}
	})
	if m := r.frameOf(root); m != guest.InvalidMFN {
		l.putWord(r.shared, l.p2mCR3, l.makeCR3(uint64(m)))
	}
	return err
}

// writeP2M writes where the guest's frames are now into its P2M.
func (r *PVRestore) writeP2M(ctx context.Context) error {
	l := r.l
	return r.eachP2MPage(ctx, guest.ReadWrite, func(page []byte, first guest.PFN, count int) {
		for i, m := range r.mfns[first:][:count] {
			l.putWord(page, i*l.width, uint64(m)) // guest.InvalidMFN is all ones in either width
		}
	})
}

// eachP2MPage calls f for each frame of the P2M with the first PFN it describes and how many.
func (r *PVRestore) eachP2MPage(ctx context.Context, prot guest.Prot, f func(page []byte, first guest.PFN, count int)) error {
	for at := 0; at < len(r.p2m); at += xcstream.MaxBatch {
		r.gfns = r.gfns[:0]
		for i, p := range r.p2m[at:min(at+xcstream.MaxBatch, len(r.p2m))] {
			m, err := r.ordinary(p)
			if err != nil {
				return fmt.Errorf("frame %d of the P2M: %w", at+i, err)
			}
			r.gfns = append(r.gfns, guest.GFN(m))
		}
		mapping, err := r.mapPages(ctx, prot)
		if err != nil {
			return fmt.Errorf("P2M: %w", err)
		}
		err = withPages(mapping, func(pages [][]byte) error {
			for i, page := range pages {
				first := uint64(at+i) * r.l.fpp
				f(page, guest.PFN(first), int(min(r.l.fpp, uint64(r.last)+1-first)))
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("P2M: %w", err)
		}
	}
	return nil
}

// disconnectConsole marks the console's ring as one that nobody listens to yet.
func (r *PVRestore) disconnectConsole(ctx context.Context) error {
	if !r.hasConnection() {
		return nil
	}
	r.gfns = append(r.gfns[:0], r.rings.Console)
	mapping, err := r.mapPages(ctx, guest.ReadWrite)
	if err != nil {
		return fmt.Errorf("console ring: %w", err)
	}
	return withPages(mapping, func(pages [][]byte) error {
		pages[0][consoleConnection] = consoleDisconnected
		return nil
	})
}
