package restore

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// Opening is what a stream says of its domain before the first page.
type Opening struct {
	Version uint32
	Domain  xcstream.DomainHeader
	PVInfo  xcstream.PVInfo // zero for an HVM domain
	Spec    *guest.Spec     // from an XENFERRY_DOMAIN record, nil without one
}

// Kind is the kind of guest as far as the stream tells: HVM stands for PVH too.
func (o *Opening) Kind() guest.Kind {
	switch {
	case o.Domain.Type == xcstream.DomainHVM:
		return guest.HVM
	case o.PVInfo.Width == 4:
		return guest.PV32
	}
	return guest.PV64
}

// Observer is told how a restore goes on, from the goroutine of Run.
type Observer interface {
	// Received is told after each PAGE_DATA: how many of its pages had data.
	Received(frames, pages int)
	// Differ is told of pages that VERIFY found different.
	Differ(pfns []guest.PFN)
	// Taken is told that a checkpoint that was kept back until it was complete is in the domain.
	Taken()
}

// Options say how a stream is restored.
type Options struct {
	// Checkpoint is asked at each CHECKPOINT of a checkpointed stream (Remus): it takes what belongs to the checkpoint
	// besides and stands behind the record. Nil takes plain streams only.
	Checkpoint func(context.Context) (Verdict, error)
}

// Run reads a stream from src up to END, and not an octet further, into the domain that open returns. open is called
// once, when the static records have come. The domain is complete, and paused, when the error is nil; in any other
// case it is of no use. Errors about the stream are record.Errors.
func Run(ctx context.Context, src io.Reader, opt Options, open func(context.Context, Opening) (Guest, error), obs Observer) (Result, error) {
	l := &loader{in: xcstream.NewReader(src, record.Lenient, 0), opt: opt, open: open, obs: obs}
	defer l.close()
	if err := l.in.Headers(); err != nil {
		return Result{}, err
	}
	l.order = xcstream.NewOrder(record.Lenient, l.in.Image.Version, l.in.Domain.Type)
	l.opening = Opening{Version: l.in.Image.Version, Domain: l.in.Domain}
	for !l.ended {
		if err := l.next(ctx); err != nil {
			return Result{}, l.in.Wrap(err)
		}
	}
	result, err := l.guest.Finish(ctx)
	return result, l.in.Wrap(err)
}

// next takes one record.
func (l *loader) next(ctx context.Context) error {
	if l.checkpoint != nil {
		return l.checkpoint.next(ctx, l)
	}
	t, _, err := l.in.Next()
	if err != nil {
		return err
	}
	if _, err := l.order.Next(t); err != nil {
		return err
	}
	return l.record(ctx, t)
}

type loader struct {
	in      *xcstream.Reader
	order   *xcstream.Order
	opt     Options
	open    func(context.Context, Opening) (Guest, error)
	obs     Observer
	opening Opening
	policy  guest.CPUPolicy
	guest   Guest // nil until opened
	verify  bool
	ended   bool
	batch   Batch

	checkpoint *checkpointed // from the first CHECKPOINT on
}

func (l *loader) close() {
	_ = l.batch.Close()
	if l.guest != nil {
		_ = l.guest.Close()
	}
}

// record takes the record of type t, of which the header is read and which may come now.
func (l *loader) record(ctx context.Context, t xcstream.Type) error {
	if isStatic(t) {
		return l.takeStatic(t)
	}
	if !t.Known() {
		return l.in.Skip()
	}
	if err := l.ensureOpen(ctx); err != nil {
		return err
	}
	switch t {
	case xcstream.TypePageData:
		return l.pageData(ctx)
	case xcstream.TypeX86PVP2MFrames:
		var frames xcstream.P2MFrames
		if err := l.in.Decode(&frames); err != nil {
			return err
		}
		return l.guest.P2MFrames(ctx, frames)
	case xcstream.TypeVerify:
		l.verify = true
		return l.in.Skip()
	case xcstream.TypeEnd:
		l.ended = true
		return l.in.Skip()
	case xcstream.TypeCheckpoint:
		return l.firstCheckpoint(ctx)
	}
	body, err := l.in.Body()
	if err != nil {
		return err
	}
	if t == xcstream.TypeX86PVVCPUBasic && len(body) >= 8 {
		if err := l.order.VCPU(t, binary.LittleEndian.Uint32(body), len(body)-8); err != nil {
			return err
		}
	}
	return l.guest.Record(ctx, t, body)
}

// isStatic reports whether t says what the domain is, rather than what is in it.
func isStatic(t xcstream.Type) bool {
	switch t {
	case xcstream.TypeX86PVInfo, xcstream.TypeX86CPUIDPolicy, xcstream.TypeX86MSRPolicy,
		xcstream.TypeStaticDataEnd, xcstream.TypeDomain:
		return true
	}
	return false
}

func (l *loader) takeStatic(t xcstream.Type) error {
	switch policy := t == xcstream.TypeX86CPUIDPolicy || t == xcstream.TypeX86MSRPolicy; {
	case l.guest != nil && policy:
		return l.in.Skip() // too late to matter, and stock restore does not mind
	case l.guest != nil:
		return fmt.Errorf("%w: the domain is made already", record.ErrOrder)
	}
	switch t {
	case xcstream.TypeX86PVInfo:
		return l.in.Decode(&l.opening.PVInfo)
	case xcstream.TypeX86CPUIDPolicy:
		var p xcstream.CPUIDPolicy
		if err := l.in.Decode(&p); err != nil {
			return err
		}
		l.policy.Leaves = p
	case xcstream.TypeX86MSRPolicy:
		var p xcstream.MSRPolicy
		if err := l.in.Decode(&p); err != nil {
			return err
		}
		l.policy.MSRs = p
	case xcstream.TypeStaticDataEnd:
		return l.in.Skip()
	case xcstream.TypeDomain:
		var d xcstream.Domain
		if err := l.in.Decode(&d); err != nil {
			return err
		}
		l.opening.Spec = &d.Spec
	}
	return nil
}

// ensureOpen has the domain made by the first record that is not static.
func (l *loader) ensureOpen(ctx context.Context) error {
	if l.guest != nil {
		return nil
	}
	g, err := l.open(ctx, l.opening)
	if err != nil {
		return err
	}
	l.guest = g
	if l.opening.PVInfo != (xcstream.PVInfo{}) {
		if err := g.PVInfo(ctx, l.opening.PVInfo); err != nil {
			return err
		}
	}
	return g.StaticEnd(ctx, l.policy)
}

// pageData has the guest place a PAGE_DATA's pages, and reads them to their places.
func (l *loader) pageData(ctx context.Context) error {
	head, err := l.in.PageData()
	if err != nil {
		return err
	}
	place, placed := l.guest.Place, l.guest.Placed
	if l.verify {
		place, placed = l.guest.Compare, l.compared
	}
	if err := place(ctx, head.Entries, &l.batch); err != nil {
		return err
	}
	if len(l.batch.Pages) != head.Pages {
		return fmt.Errorf("%d pages have data, %d got a place", head.Pages, len(l.batch.Pages))
	}
	if err := l.in.ReadVec(l.batch.Pages); err != nil {
		return err
	}
	if err := l.in.End(); err != nil {
		return err
	}
	if err := placed(ctx, head.Entries, &l.batch); err != nil {
		return err
	}
	l.obs.Received(len(head.Entries), head.Pages)
	return l.batch.Close()
}

func (l *loader) compared(ctx context.Context, entries []xcstream.PageEntry, b *Batch) error {
	differ, err := l.guest.Compared(ctx, entries, b)
	if len(differ) > 0 {
		l.obs.Differ(differ)
	}
	return err
}
