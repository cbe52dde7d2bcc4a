package x86

import (
	"context"
	"fmt"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// HVMSave is an HVM or PVH domain to be saved. Its PFNs are its GFNs, and nothing in its pages has to be translated.
type HVMSave struct{ saving }

func openHVMSave(ctx context.Context, s saving) (Source, error) {
	top, err := s.host.MaxGFN(ctx, s.info.ID)
	if err != nil {
		return nil, err
	}
	s.grow(uint64(top) + 1)
	return &HVMSave{s}, nil
}

// Domain is what the stream's domain header says.
func (s *HVMSave) Domain() xcstream.DomainHeader { return s.header(xcstream.DomainHVM) }

// Static is the domain's CPU policy.
func (s *HVMSave) Static(ctx context.Context) ([]xcstream.Record, error) { return s.policy(ctx) }

// Begin is nothing.
func (s *HVMSave) Begin(context.Context) ([]xcstream.Record, error) { return nil, nil }

// Load sets b to the pages of pfns as they are now.
func (s *HVMSave) Load(ctx context.Context, pfns []guest.PFN, b *xcstream.Batch) error {
	return s.load(ctx, pfns, b, identity{})
}

// CheckRunning finds nothing: an HVM guest has no structure of its own that saving relies on.
func (s *HVMSave) CheckRunning(context.Context) error { return nil }

// Suspended finds pages that came or went since they were sent.
func (s *HVMSave) Suspended(ctx context.Context) ([]xcstream.Record, guest.Bitmap, error) {
	s.suspended = true
	top, err := s.host.MaxGFN(ctx, s.info.ID)
	if err != nil {
		return nil, nil, err
	}
	s.grow(uint64(top) + 1)
	set, err := s.changed(ctx, identity{})
	return nil, set, err
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

func (identity) copyTable(_, _ []byte, level int) error {
	return fmt.Errorf("a level %d page table of Xen's in a guest that keeps its own", level)
}
