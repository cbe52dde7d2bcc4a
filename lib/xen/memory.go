package xen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// maxBatch is how many frames Xen takes at once in getpageframeinfo3, and we in every operation on frames.
const maxBatch = 1024

// Commands of memory_op (XENMEM_*).
const (
	memDecreaseReservation   = 1
	memMaximumRAMPage        = 2
	memMachphysMFNList       = 5
	memPopulatePhysmap       = 6
	memAddToPhysmap          = 7
	memMaximumGPFN           = 14
	memRemoveFromPhysmap     = 15
	memMachphysCompatMFNList = 25
)

// PageTypes sets types[i] to the type of gfns[i].
func (h *Host) PageTypes(_ context.Context, id guest.DomID, gfns []guest.GFN, types []guest.PageType) error {
	for len(gfns) > 0 {
		n := min(len(gfns), maxBatch)
		if err := h.pageTypes(id, gfns[:n], types[:n]); err != nil {
			return err
		}
		gfns, types = gfns[n:], types[n:]
	}
	return nil
}

func (h *Host) pageTypes(id guest.DomID, gfns []guest.GFN, types []guest.PageType) error {
	const attempts = 3 // the kernel may be moving a page of locked memory when Xen looks for it
	var err error
	for range attempts {
		if err = h.pageTypesOnce(id, gfns, types); !errors.Is(err, unix.EFAULT) {
			break
		}
	}
	return err
}

func (h *Host) pageTypesOnce(id guest.DomID, gfns []guest.GFN, types []guest.PageType) error {
	d, err := h.domctl(getPageFrameInfo3, id, 8*len(gfns))
	if err != nil {
		return err
	}
	defer d.free()
	array := words(d.buffer(8, 8*len(gfns)))
	le.PutUint64(d.u, uint64(len(gfns)))
	for i, g := range gfns {
		array[i] = uint64(g)
	}
	if err := d.call(); err != nil {
		return err
	}
	for i := range types {
		types[i] = guest.PageType(array[i] >> 28 & 0xF)
	}
	return nil
}

// mmapBatch is the name of how frames are mapped.
const mmapBatch = "IOCTL_PRIVCMD_MMAPBATCH_V2"

// maxFrame is what a page table entry holds: Linux would cut off what is above, and so map another frame.
const maxFrame = 1<<40 - 1

// pagedWait is how long to wait for frames that Xen is bringing back from a pager.
const pagedWait = 100 * time.Microsecond

// Map maps gfns in order.
func (h *Host) Map(ctx context.Context, id guest.DomID, gfns []guest.GFN, prot guest.Prot) (*guest.Mapping, error) {
	if len(gfns) == 0 {
		return &guest.Mapping{}, nil
	}
	s := h.scratch.Get().(*mapScratch)
	s.frames = slices.Grow(s.frames[:0], len(gfns))
	for _, g := range gfns {
		s.frames = append(s.frames, min(uint64(g), maxFrame))
	}
	s.errs = slices.Grow(s.errs[:0], len(gfns))[:len(gfns)]
	clear(s.errs) // an earlier Map's
	mem, err := h.mapFrames(ctx, id, s.frames, s.errs, prot)
	if err != nil {
		return nil, err
	}
	s.pages = slices.Grow(s.pages[:0], len(gfns))[:len(gfns)]
	m := &guest.Mapping{
		Pages: s.pages,
		Unmap: func() error { h.scratch.Put(s); return unview(mem) },
		Put:   func() error { h.scratch.Put(s); return h.kept.add(id, mem) },
	}
	missing := 0
	for i, e := range s.errs {
		m.Pages[i] = nil
		if e == 0 {
			m.Pages[i] = mem[i*guest.PageSize:][:guest.PageSize:guest.PageSize]
			continue
		}
		if m.Errs == nil {
			m.Errs = make([]error, len(gfns))
		}
		m.Errs[i] = detail(fail(mmapBatch, id, unix.Errno(-e)), "frame %#x", s.frames[i])
		if unix.Errno(-e) == unix.ESRCH {
			missing++
		}
	}
	if missing == len(gfns) {
		return nil, errors.Join(fail(mmapBatch, id, unix.ESRCH), m.Close())
	}
	return m, nil
}

// mapScratch is the memory of a Map: a save makes as many as it sends batches, and fresh memory takes a fault a page.
type mapScratch struct {
	frames []uint64
	errs   []int32
	pages  [][]byte
}

// mapFrames maps frames, some of which may fail: errs, as long as frames, says which.
func (h *Host) mapFrames(ctx context.Context, id guest.DomID, frames []uint64, errs []int32, prot guest.Prot) ([]byte, error) {
	mem, err := h.dev.view(len(frames), prot)
	if err != nil {
		return nil, fail(mmapBatch, id, err)
	}
	err = h.dev.mapBatch(id, mem, frames, errs)
	for errors.Is(err, unix.ENOENT) { // some are paged out, and on their way back now
		select {
		case <-time.After(pagedWait):
			err = h.mapPaged(id, mem, frames, errs)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		return nil, errors.Join(fail(mmapBatch, id, err), unview(mem))
	}
	return mem, nil
}

// mapPaged maps what was paged out once more. Linux takes only holes of a mapping, hence each run by itself.
func (h *Host) mapPaged(id guest.DomID, mem []byte, frames []uint64, errs []int32) error {
	const paged = -int32(unix.ENOENT)
	var again error
	for i := 0; i < len(errs); {
		n := 0
		for i+n < len(errs) && errs[i+n] == paged {
			n++
		}
		if n == 0 {
			i++
			continue
		}
		err := h.dev.mapBatch(id, mem[i*guest.PageSize:][:n*guest.PageSize], frames[i:i+n], errs[i:i+n])
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		again = errors.Join(again, err)
		i += n
	}
	if again != nil {
		return unix.ENOENT
	}
	return nil
}

// Populate gives the domain one new frame for each of gfns.
func (h *Host) Populate(_ context.Context, id guest.DomID, gfns []guest.GFN) error {
	return h.reserve("XENMEM_populate_physmap", memPopulatePhysmap, id, gfns, true)
}

// Depopulate takes frames back.
func (h *Host) Depopulate(_ context.Context, id guest.DomID, gfns []guest.GFN) error {
	return h.reserve("XENMEM_decrease_reservation", memDecreaseReservation, id, gfns, false)
}

// reserve makes a memory_op on a xen_memory_reservation, 32 octets:
//
//	 0  extent_start  handle of u64 frame numbers, which populate replaces by MFNs for a PV domain
//	 8  nr_extents    u64
//	16  extent_order  u32
//	20  mem_flags     u32
//	24  domid         u16
func (h *Host) reserve(name string, cmd uint64, id guest.DomID, gfns []guest.GFN, back bool) error {
	for len(gfns) > 0 {
		n := min(len(gfns), maxBatch)
		if err := h.reserveBatch(name, cmd, id, gfns[:n], back); err != nil {
			return err
		}
		gfns = gfns[n:]
	}
	return nil
}

func (h *Host) reserveBatch(name string, cmd uint64, id guest.DomID, gfns []guest.GFN, back bool) error {
	a, err := h.memory.take(32 + 64 + 8*len(gfns))
	if err != nil {
		return fail(name, id, err)
	}
	defer a.free()
	op, extents := a.get(32), a.get(8*len(gfns))
	list := words(extents)
	for i, g := range gfns {
		list[i] = uint64(g)
	}
	le.PutUint64(op, address(extents))
	le.PutUint64(op[8:], uint64(len(gfns)))
	le.PutUint16(op[24:], uint16(id))
	done, err := h.memoryOp(a, name, cmd, id, op)
	switch {
	case err != nil:
		return err
	case done != uint64(len(gfns)):
		if _, err := h.info(id); errors.Is(err, fs.ErrNotExist) {
			return err // for which Xen has no errno here
		}
		return fmt.Errorf("%s of domain %d: Xen did %d of %d frames (%s)", name, id, done, len(gfns), shortReason(cmd))
	}
	if back {
		for i := range gfns {
			gfns[i] = guest.GFN(list[i])
		}
	}
	return nil
}

// shortReason is what usually makes Xen stop early, which it does without an errno.
func shortReason(cmd uint64) string {
	if cmd == memPopulatePhysmap {
		return "the domain's memory limit is reached, or the host has no more free memory"
	}
	return "the next one is not there, or in use"
}

// MaxGFN is the highest GFN of an HVM domain.
func (h *Host) MaxGFN(_ context.Context, id guest.DomID) (guest.GFN, error) {
	a, err := h.memory.take(128)
	if err != nil {
		return 0, err
	}
	defer a.free()
	op := a.get(8)
	le.PutUint16(op, uint16(id))
	top, err := h.memoryOp(a, "XENMEM_maximum_gpfn", memMaximumGPFN, id, op)
	return guest.GFN(top), err
}

// mfnList asks for a list of frames (struct xen_machphys_mfn_list): each is the first of 2 MiB of a table.
func (h *Host) mfnList(name string, cmd uint64, count int) ([]uint64, error) {
	a, err := h.memory.take(128 + 8*count)
	if err != nil {
		return nil, err
	}
	defer a.free()
	op, list := a.get(24), a.get(8*count)
	le.PutUint32(op, uint32(count))
	le.PutUint64(op[8:], address(list))
	if _, err := h.memoryOp(a, name, cmd, noDomain, op); err != nil {
		return nil, err
	}
	if n := int(le.Uint32(op[16:])); n != count {
		return nil, fmt.Errorf("%s: Xen tells %d of %d extents", name, n, count)
	}
	return slices.Clone(words(list)), nil
}

// M2P is the machine-to-guest table, mapped when first needed.
func (h *Host) M2P(ctx context.Context) (guest.M2P, error) {
	h.m2p.Lock()
	defer h.m2p.Unlock()
	if h.m2p.mem != nil {
		return h.m2p.table, nil
	}
	a, err := h.memory.take(128)
	if err != nil {
		return nil, err
	}
	defer a.free()
	frames, err := h.memoryOp(a, "XENMEM_maximum_ram_page", memMaximumRAMPage, noDomain, nil)
	if err != nil {
		return nil, err
	}
	const chunk = 2 << 20
	chunks := int((frames*8 + chunk - 1) / chunk)
	list, err := h.mfnList("XENMEM_machphys_mfn_list", memMachphysMFNList, chunks)
	if err != nil {
		return nil, err
	}
	all := make([]uint64, 0, chunks*chunk/guest.PageSize)
	for _, first := range list {
		for i := range uint64(chunk / guest.PageSize) {
			all = append(all, first+i)
		}
	}
	errs := make([]int32, len(all))
	mem, err := h.mapFrames(ctx, domXen, all, errs, guest.ReadOnly)
	if err != nil {
		return nil, fmt.Errorf("map the M2P: %w", err)
	}
	if i := slices.IndexFunc(errs, func(e int32) bool { return e != 0 }); i >= 0 {
		return nil, errors.Join(detail(fail(mmapBatch, domXen, unix.Errno(-errs[i])), "page %d of the M2P", i), unview(mem))
	}
	h.m2p.mem, h.m2p.table = mem, guest.M2P(words(mem)[:frames])
	return h.m2p.table, nil
}

// CompatM2P is the first frame of the M2P that 32-bit PV guests see.
func (h *Host) CompatM2P(context.Context) (guest.MFN, error) {
	list, err := h.mfnList("XENMEM_machphys_compat_mfn_list", memMachphysCompatMFNList, 1)
	if err != nil {
		return 0, err
	}
	return guest.MFN(list[0]), nil
}
