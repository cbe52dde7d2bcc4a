package x86

import (
	"context"
	"fmt"
	"slices"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// HVMSave is an HVM or PVH domain to be saved. Its PFNs are its GFNs, and nothing in its pages has to be translated.
type HVMSave struct {
	saving
	rounds   int              // that are over
	balloons bool             // pages came or went since they were sent
	was      []guest.PageType // of the batch that is being loaded, when it was sent before
}

func openHVMSave(ctx context.Context, s saving) (Source, error) {
	top, err := s.host.MaxGFN(ctx, s.info.ID)
	if err != nil {
		return nil, err
	}
	s.grow(uint64(top) + 1)
	return &HVMSave{saving: s}, nil
}

// Domain is what the stream's domain header says.
func (s *HVMSave) Domain() xcstream.DomainHeader { return s.header(xcstream.DomainHVM) }

// Static is the domain's CPU policy.
func (s *HVMSave) Static(ctx context.Context) ([]xcstream.Record, error) { return s.policy(ctx) }

// Begin is nothing.
func (s *HVMSave) Begin(context.Context) ([]xcstream.Record, error) { return nil, nil }

// Load sets b to the pages of pfns as they are now.
func (s *HVMSave) Load(ctx context.Context, pfns []guest.PFN, b *xcstream.Batch) error {
	if s.rounds == 0 || s.suspended {
		return s.load(ctx, pfns, b, identity{})
	}
	s.was = s.was[:0]
	for _, p := range pfns {
		s.was = append(s.was, s.sent.get(p))
	}
	if err := s.load(ctx, pfns, b, identity{}); err != nil {
		return err
	}
	for i, e := range b.Entries {
		s.balloons = s.balloons || e.Type().HasData() != s.was[i].HasData()
	}
	return nil
}

// CheckRunning looks whether the guest's balloon is at work.
func (s *HVMSave) CheckRunning(ctx context.Context) error {
	s.rounds++
	_, err := s.countPages(ctx)
	return err
}

// Suspended finds pages that came or went since they were sent, which before Xen 4.22 no mark in the log shows.
func (s *HVMSave) Suspended(ctx context.Context) ([]xcstream.Record, guest.Bitmap, error) {
	s.suspended = true
	top, err := s.host.MaxGFN(ctx, s.info.ID)
	if err != nil {
		return nil, nil, err
	}
	s.grow(uint64(top) + 1)
	s.ahead = answers{}
	set := guest.NewBitmap(s.frames)
	if !s.loaded {
		set.SetFirst(s.frames) // nothing was sent
		return nil, set, nil
	}
	return nil, set, s.cameOrWent(ctx, set)
}

// fewBlocks is how many blocks of 1024 pages are asked about in any case: 64 MiB, which takes a few ms.
const fewBlocks = 16

// cameOrWent adds to set the pages whose type is another than it was sent as. To ask for all types takes a call for
// each 1024 PFNs, a thousand for the smallest guest, while nobody runs. So it asks first where there are both pages and
// holes, which is where a balloon is, and where all are pages, if that is little; only if something changed there, or a page
// was seen to come or go before, does it ask everywhere.
//
// What can be missed is in a guest of more memory: a page that went while another came, so soon that the number of pages was
// the same whenever it was looked at, and that other was sent once, as a page. Stock Xen looks for none of all this.
func (s *HVMSave) cameOrWent(ctx context.Context, set guest.Bitmap) error {
	now, err := s.countPages(ctx)
	if err != nil {
		return err
	}
	block := func(first uint64) (end, pages uint64) {
		end = min(first+xcstream.MaxBatch, s.frames)
		return end, s.sent.pages(first, end)
	}
	full := 0
	for first := uint64(0); first < s.frames; first += xcstream.MaxBatch {
		if end, pages := block(first); pages == end-first {
			full++
		}
	}
	for _, everywhere := range []bool{false, true} {
		if everywhere && !s.balloons {
			break
		}
		s.asked.gfns = s.asked.gfns[:0]
		for first := uint64(0); first < s.frames; first += xcstream.MaxBatch {
			end, pages := block(first)
			early := pages > 0 && (pages < end-first || full <= fewBlocks)
			if early != everywhere {
				s.asked.gfns = identity{}.appendGFNs(s.asked.gfns, guest.PFN(first), int(end-first))
			}
			if len(s.asked.gfns) >= typesAtOnce || end == s.frames {
				if err := s.compareTypes(ctx, set); err != nil {
					return err
				}
			}
		}
	}
	s.balloons, s.info.TotPages = false, now // for the next checkpoint
	return nil
}

// countPages is how many pages the domain has; it notes if that was another number at the start, or at the last checkpoint.
func (s *HVMSave) countPages(ctx context.Context) (uint64, error) {
	now, err := s.host.Info(ctx, s.info.ID)
	if err == nil && now.TotPages != s.info.TotPages {
		s.balloons = true
	}
	return now.TotPages, err
}

// compareTypes asks for what is in s.asked, and adds the pages that were sent as something else to set.
func (s *HVMSave) compareTypes(ctx context.Context, set guest.Bitmap) error {
	if len(s.asked.gfns) == 0 {
		return nil
	}
	if err := s.ask(ctx); err != nil {
		return err
	}
	for i, t := range s.asked.types {
		if p := guest.PFN(s.asked.gfns[i]); t != s.sent.get(p) {
			set.Set(uint64(p))
			s.balloons = true
		}
	}
	s.asked.gfns = s.asked.gfns[:0]
	return nil
}

// End is TSC, context and parameters, in the order of stock Xen (the specification has the last two the other way
// round).
func (s *HVMSave) End(ctx context.Context) ([]xcstream.Record, error) {
	tsc, err := s.tsc(ctx)
	if err != nil {
		return nil, err
	}
	blob, err := s.host.HVMContext(ctx, s.info.ID)
	if err != nil {
		return nil, err
	}
	records := []xcstream.Record{tsc, {Type: xcstream.TypeHVMContext, Body: xcstream.Raw(blob)}}
	params, err := s.params(ctx)
	if err != nil {
		return nil, err
	}
	if len(params) > 0 {
		records = append(records, xcstream.Record{Type: xcstream.TypeHVMParams, Body: params})
	}
	return records, nil
}

// params is the parameters that a saver of this release sends, those that are not zero.
func (s *HVMSave) params(ctx context.Context) (xcstream.HVMParams, error) {
	var params xcstream.HVMParams
	for _, index := range savedParams(s.host.Release()) {
		value, err := s.host.HVMParam(ctx, s.info.ID, index)
		if err != nil {
			return nil, err
		}
		if value != 0 {
			params = append(params, xcstream.HVMParam{Index: uint64(index), Value: value})
		}
	}
	return params, nil
}

// Close has nothing to give back.
func (s *HVMSave) Close() error { return nil }

// identity is the address space of a guest whose frame numbers are its own.
type identity struct{}

func (identity) gfn(p guest.PFN) guest.GFN { return guest.GFN(p) }

func (identity) appendGFNs(to []guest.GFN, first guest.PFN, n int) []guest.GFN {
	to = slices.Grow(to, n)
	for i := range n {
		to = append(to, guest.GFN(first)+guest.GFN(i))
	}
	return to
}

func (identity) copyTable(_, _ []byte, level int) error {
	return fmt.Errorf("a level %d page table of Xen's in a guest that keeps its own", level)
}
