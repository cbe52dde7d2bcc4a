package x86

import (
	"bytes"
	"context"
	"fmt"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// appendVCPU adds the records of vCPU n, of which only the first must be there.
func (s *PVSave) appendVCPU(ctx context.Context, records []xcstream.Record, n uint32) ([]xcstream.Record, error) {
	basic, err := s.host.VCPUContext(ctx, s.info.ID, n)
	if err != nil {
		return nil, err
	}
	if len(basic) != s.l.contextSize {
		return nil, fmt.Errorf("context of vCPU %d of domain %d has %d octets, not %d", n, s.info.ID, len(basic), s.l.contextSize)
	}
	basic = bytes.Clone(basic)
	if err := s.normaliseContext(n, basic); err != nil {
		return nil, fmt.Errorf("context of vCPU %d of domain %d: %w", n, s.info.ID, err)
	}
	extended, err := s.host.VCPUExtended(ctx, s.info.ID, n)
	if err != nil {
		return nil, err
	}
	xsave, err := s.host.VCPUXSave(ctx, s.info.ID, n)
	if err != nil {
		return nil, err
	}
	msrs, err := s.host.VCPUMSRs(ctx, s.info.ID, n)
	if err != nil {
		return nil, err
	}
	for _, part := range []struct {
		t       xcstream.Type
		context []byte
	}{
		{xcstream.TypeX86PVVCPUBasic, basic},
		{xcstream.TypeX86PVVCPUExtended, extended},
		{xcstream.TypeX86PVVCPUXSave, xsave},
		{xcstream.TypeX86PVVCPUMSRs, xcstream.AppendMSRs(nil, msrs)},
	} {
		if len(part.context) > 0 {
			records = append(records, xcstream.Record{Type: part.t, Body: xcstream.VCPU{ID: n, Context: part.context}})
		}
	}
	return records, nil
}

// normaliseContext gives a vcpu_guest_context PFNs for its MFNs.
func (s *PVSave) normaliseContext(n uint32, c []byte) error {
	l := s.l
	rewrite := func(what string, off int, m guest.MFN, encode func(uint64) uint64) error {
		p, err := s.p2m.pfn(m)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		l.putWord(c, off, encode(uint64(p)))
		return nil
	}
	same := func(frame uint64) uint64 { return frame }
	if n == 0 {
		// What the suspend hypercall was given.
		if err := rewrite("start_info in edx", l.edx, l.mfn(c, l.edx), same); err != nil {
			return err
		}
	}
	frames, err := l.gdtFrameCount(c)
	if err != nil {
		return err
	}
	for i := range frames {
		off := l.gdtFrames + i*l.width
		if err := rewrite(fmt.Sprintf("GDT frame %d", i), off, l.mfn(c, off), same); err != nil {
			return err
		}
	}
	if err := rewrite("cr3", l.cr3, guest.MFN(l.cr3Frame(l.word(c, l.cr3))), l.makeCR3); err != nil {
		return err
	}
	if l.cr1 == 0 || l.word(c, l.cr1) == 0 {
		return nil
	}
	// The page tables of user mode. Bit 0 tells the restorer that there are some.
	return rewrite("cr1", l.cr1, guest.MFN(l.word(c, l.cr1)>>guest.PageShift), func(p uint64) uint64 { return p<<guest.PageShift | 1 })
}

// gdtFrameCount is how many frames the GDT of a vcpu_guest_context has.
func (l *pvLayout) gdtFrameCount(c []byte) (int, error) {
	entries := l.word(c, l.gdtEntries)
	if entries > maxGDTEntries {
		return 0, fmt.Errorf("GDT of %d entries: a guest can have %d", entries, maxGDTEntries)
	}
	return int(entries+gdtPerFrame-1) / gdtPerFrame, nil
}

// vcpuState is what the stream had of one vCPU.
type vcpuState struct {
	basic, extended, xsave []byte
	msrs                   []guest.MSR
}

// loadVCPU makes the state of vCPU n this domain's and gives it to the host, in the order that Xen wants. A vCPU of
// which nothing came stays down.
func (r *PVRestore) loadVCPU(ctx context.Context, n uint32, v *vcpuState) error {
	id := r.info.ID
	if v.basic != nil {
		if n == 0 {
			if err := r.startInfo(ctx, v.basic); err != nil {
				return err
			}
		}
		if err := r.localiseContext(v.basic); err != nil {
			return fmt.Errorf("context of vCPU %d: %w", n, err)
		}
		if err := r.host.SetVCPUContext(ctx, id, n, v.basic); err != nil {
			return err
		}
	}
	if v.extended != nil {
		if err := r.host.SetVCPUExtended(ctx, id, n, v.extended); err != nil {
			return err
		}
	}
	if v.xsave != nil {
		if err := r.host.SetVCPUXSave(ctx, id, n, v.xsave); err != nil {
			return err
		}
	}
	if v.msrs != nil {
		return r.host.SetVCPUMSRs(ctx, id, n, v.msrs)
	}
	return nil
}

// localiseContext gives a vcpu_guest_context MFNs for its PFNs, other than start_info's.
func (r *PVRestore) localiseContext(c []byte) error {
	l := r.l
	le.PutUint32(c[contextFlags:], le.Uint32(c[contextFlags:])|vgcfOnline)
	frames, err := l.gdtFrameCount(c)
	if err != nil {
		return fmt.Errorf("%w: %w", record.ErrValue, err)
	}
	for i := range frames {
		off := l.gdtFrames + i*l.width
		m, err := r.ordinary(guest.PFN(l.word(c, off)))
		if err != nil {
			return fmt.Errorf("GDT frame %d: %w", i, err)
		}
		l.putWord(c, off, uint64(m))
	}
	m, err := r.root(guest.PFN(l.cr3Frame(l.word(c, l.cr3))))
	if err != nil {
		return fmt.Errorf("cr3: %w", err)
	}
	l.putWord(c, l.cr3, l.makeCR3(uint64(m)))
	if l.cr1 == 0 || l.word(c, l.cr1)&1 == 0 {
		return nil
	}
	if m, err = r.root(guest.PFN(l.word(c, l.cr1) >> guest.PageShift)); err != nil {
		return fmt.Errorf("cr1: %w", err)
	}
	l.putWord(c, l.cr1, uint64(m)<<guest.PageShift)
	return nil
}

// startInfo makes the guest's start_info, whose PFN is in vCPU 0's edx, that of this domain on this host.
func (r *PVRestore) startInfo(ctx context.Context, c []byte) error {
	l := r.l
	p := guest.PFN(l.word(c, l.edx))
	frame, err := r.ordinary(p)
	if err != nil {
		return fmt.Errorf("start_info in edx of vCPU 0: %w", err)
	}
	l.putWord(c, l.edx, uint64(frame))
	r.gfns = append(r.gfns[:0], guest.GFN(frame))
	mapping, err := r.mapPages(ctx, guest.ReadWrite)
	if err != nil {
		return err
	}
	return withPages(mapping, func(pages [][]byte) error { return r.fillStartInfo(pages[0], p) })
}

// fillStartInfo makes the start_info in page, the guest's page p, this domain's, and finds the rings in it.
func (r *PVRestore) fillStartInfo(page []byte, p guest.PFN) error {
	l := r.l
	l.putWord(page, l.nrPages, uint64(r.last)+1)
	l.putWord(page, l.sharedInfo, uint64(r.info.SharedInfo)<<guest.PageShift)
	le.PutUint32(page[l.startFlags:], 0)
	for _, ring := range []struct {
		what        string
		mfn, evtchn int
		port        uint32
		gfn         *guest.GFN
	}{
		{"store", l.storeMFN, l.storeEvtchn, r.info.StoreEvtchn, &r.rings.Store},
		{"console", l.consoleMFN, l.consoleEvtchn, r.info.ConsoleEvtchn, &r.rings.Console},
	} {
		m, err := r.frame(guest.PFN(l.word(page, ring.mfn)))
		if err != nil {
			return fmt.Errorf("%s ring in start_info (PFN %#x): %w", ring.what, p, err)
		}
		l.putWord(page, ring.mfn, uint64(m))
		le.PutUint32(page[ring.evtchn:], ring.port)
		*ring.gfn = guest.GFN(m)
	}
	return nil
}
