package x86

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// PVSave is a PV domain to be saved. Its pages are found by the guest's own P2M, its page tables and vCPU contexts are
// full of MFNs, which mean nothing on another host: they are made PFNs.
type PVSave struct {
	saving
	l      *pvLayout
	m2p    guest.M2P
	compat guest.MFN // where a 32-bit guest's slots for the M2P lead
	shared *guest.Mapping
	p2m    *p2m
	told   xcstream.P2MFrames // what the stream was told of it last

	// sentFrames is the frame that each page was in when it was loaded last, its lower 32 bits: a page that moved may
	// hold something else without having been written to.
	sentFrames []uint32
}

// attempts is how often the P2M of a running guest is looked for that moves it at that moment.
const attempts = 10

func openPVSave(ctx context.Context, base saving) (_ Source, err error) {
	s := &PVSave{saving: base}
	if s.l, err = domainLayout(ctx, s.host, s.info.ID); err != nil {
		return nil, err
	}
	if s.m2p, err = s.host.M2P(ctx); err != nil {
		return nil, err
	}
	if s.l.width == 4 {
		if s.compat, err = s.host.CompatM2P(ctx); err != nil {
			return nil, err
		}
	}
	w := s.walker(0)
	if s.shared, err = w.mapFrames(ctx, []guest.MFN{s.info.SharedInfo}); err != nil {
		return nil, fmt.Errorf("shared_info of domain %d: %w", s.info.ID, err)
	}
	w.shared = s.shared.Pages[0]
	for range attempts {
		if s.p2m, err = w.walk(ctx); !errors.Is(err, errP2MMoves) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.shared.Close())
	}
	s.grow()
	return s, nil
}

// domainLayout is the layout for a PV domain's word size.
func domainLayout(ctx context.Context, h Host, id guest.DomID) (*pvLayout, error) {
	bits, err := h.AddressSize(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case bits == 64:
		return &pv64, nil
	case bits == 32:
		return &pv32, nil
	}
	return nil, fmt.Errorf("domain %d has words of %d bits: only 32 and 64 are known", id, bits)
}

// walker finds the P2M where the guest has it now.
func (s *PVSave) walker(floor guest.PFN) *walker {
	w := &walker{l: s.l, host: s.host, id: s.info.ID, m2p: s.m2p, floor: floor}
	if s.shared != nil {
		w.shared = s.shared.Pages[0]
	}
	return w
}

// grow makes the address space as long as the P2M.
func (s *PVSave) grow() {
	s.saving.grow(uint64(s.p2m.last) + 1)
	old := len(s.sentFrames)
	s.sentFrames = append(s.sentFrames, make([]uint32, s.frames-uint64(old))...)
	for i := old; i < len(s.sentFrames); i++ {
		s.sentFrames[i] = math.MaxUint32
	}
}

// Domain is what the stream's domain header says.
func (s *PVSave) Domain() xcstream.DomainHeader { return s.header(xcstream.DomainPV) }

// Static is X86_PV_INFO and the domain's CPU policy.
func (s *PVSave) Static(ctx context.Context) ([]xcstream.Record, error) {
	info := xcstream.PVInfo{Width: uint8(s.l.width), Levels: uint8(s.l.levels)}
	policy, err := s.policy(ctx)
	return append([]xcstream.Record{{Type: xcstream.TypeX86PVInfo, Body: info}}, policy...), err
}

// Begin is X86_PV_P2M_FRAMES.
func (s *PVSave) Begin(context.Context) ([]xcstream.Record, error) {
	return []xcstream.Record{s.p2mRecord()}, nil
}

func (s *PVSave) p2mRecord() xcstream.Record {
	s.told = xcstream.P2MFrames{End: uint32(s.p2m.last), Frames: s.p2m.frames}
	return xcstream.Record{Type: xcstream.TypeX86PVP2MFrames, Body: s.told}
}

// Load sets b to the pages of pfns as they are now, page tables normalised.
func (s *PVSave) Load(ctx context.Context, pfns []guest.PFN, b *xcstream.Batch) error {
	if err := s.load(ctx, pfns, b, s); err != nil {
		return err
	}
	for i, p := range pfns {
		s.sentFrames[p] = uint32(s.batch.gfns[i])
	}
	for _, p := range b.Deferred {
		s.sentFrames[p] = math.MaxUint32
	}
	return nil
}

// gfn makes PVSave an addressSpace.
func (s *PVSave) gfn(p guest.PFN) guest.GFN { return guest.GFN(s.p2m.mfn(p)) }

// appendGFNs makes PVSave an addressSpace.
func (s *PVSave) appendGFNs(to []guest.GFN, first guest.PFN, n int) []guest.GFN {
	for i := range n {
		to = append(to, guest.GFN(s.p2m.mfn(first+guest.PFN(i))))
	}
	return to
}

// copyTable makes PVSave an addressSpace.
func (s *PVSave) copyTable(dst, src []byte, level int) error {
	return s.l.normalise(dst, src, level, s.compat, s.p2m.pfn)
}

// CheckRunning follows a guest that moved its linear P2M, which ends a migration by stock Xen. What was loaded by the old
// one may be other pages than it seemed: Suspended finds them by the frames they were in.
func (s *PVSave) CheckRunning(ctx context.Context) error {
	same := !s.p2m.linear // nothing in a tree tells; Suspended looks once more
	err := guest.Access(func() error {
		same = same || loadGuestWord(s.l, s.shared.Pages[0], s.l.generation) == s.p2m.generation
		return nil
	})
	if err != nil || same {
		return err
	}
	now, err := s.walker(guest.PFN(s.frames - 1)).walk(ctx)
	switch {
	case errors.Is(err, errP2MMoves):
		return nil // next time, or when the guest is suspended
	case err != nil:
		return err
	}
	now.last = guest.PFN(s.frames - 1) // the stream does not know of more yet
	was := s.p2m
	s.p2m, s.ahead = now, answers{}
	return was.close()
}

// Suspended looks for the P2M once more, and for pages that came, went, moved or changed their type since they were
// sent. The record is X86_PV_P2M_FRAMES, if other frames hold the P2M now or it grew.
func (s *PVSave) Suspended(ctx context.Context) ([]xcstream.Record, guest.Bitmap, error) {
	s.suspended = true
	now, err := s.walker(guest.PFN(s.frames - 1)).walk(ctx)
	if err != nil {
		return nil, nil, err
	}
	was := s.p2m
	s.p2m = now
	s.grow()
	if err := was.close(); err != nil {
		return nil, nil, err
	}
	var records []xcstream.Record
	if uint32(now.last) != s.told.End || !slices.Equal(now.frames, s.told.Frames) {
		records = append(records, s.p2mRecord())
	}
	s.ahead = answers{}
	set := guest.NewBitmap(s.frames)
	if !s.loaded {
		set.SetFirst(s.frames) // nothing was sent
		return records, set, nil
	}
	err = guest.Access(func() error {
		for p, frame := range s.sentFrames {
			// A page that becomes a page table or ceases to be one shows in the log; one that gets another frame need not.
			if uint32(now.mfn(guest.PFN(p))) != frame {
				set.Set(uint64(p))
			}
		}
		return nil
	})
	return records, set, err
}

// End is TSC, shared_info, and the state of the vCPUs that are up.
func (s *PVSave) End(ctx context.Context) (records []xcstream.Record, err error) {
	err = guest.Access(func() error {
		records, err = s.end(ctx)
		return err
	})
	return records, err
}

func (s *PVSave) end(ctx context.Context) ([]xcstream.Record, error) {
	tsc, err := s.tsc(ctx)
	if err != nil {
		return nil, err
	}
	shared := xcstream.SharedInfo(bytes.Clone(s.shared.Pages[0]))
	records := []xcstream.Record{tsc, {Type: xcstream.TypeSharedInfo, Body: shared}}
	for n := range s.info.MaxVCPU + 1 {
		online, err := s.host.VCPUOnline(ctx, s.info.ID, n)
		if err != nil {
			return nil, err
		}
		if !online {
			continue
		}
		if records, err = s.appendVCPU(ctx, records, n); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// Close gives the mappings back.
func (s *PVSave) Close() error { return errors.Join(s.p2m.close(), s.shared.Close()) }
