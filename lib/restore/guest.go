// Package restore makes a domain's memory and state from a libxc stream: PAGE_DATA straight into the guest's pages, the
// other records to a Guest that knows the domain's type. It knows no hypervisor and no descriptor.
package restore

import (
	"context"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// Guest is what restoring asks of a domain of one type; lib/x86 has one for PV and one for HVM. Methods are called by
// one goroutine. Offsets and names of records are the caller's to add to errors.
type Guest interface {
	// PVInfo and P2MFrames are the records of these names; an HVM guest refuses them.
	PVInfo(ctx context.Context, info xcstream.PVInfo) error
	P2MFrames(ctx context.Context, frames xcstream.P2MFrames) error

	// StaticEnd is called once, at STATIC_DATA_END or where a version 2 stream implies it, with the policies the stream
	// had, which may be empty.
	StaticEnd(ctx context.Context, policy guest.CPUPolicy) error

	// Place makes the pages of a PAGE_DATA ready to be filled: it populates what is not there yet, keeps the types,
	// and sets b.Pages to the place of each page that has data, in the order of entries. A PFN may be there twice;
	// the later one counts. The entries are the caller's; they may not change before Placed.
	Place(ctx context.Context, entries []xcstream.PageEntry, b *Batch) error
	// Placed is called when all of b.Pages are filled: page tables are made the target's own, mappings closed.
	Placed(ctx context.Context, entries []xcstream.PageEntry, b *Batch) error
	// Compare is Place in VERIFY mode: it hands out buffers, and Compared counts the pages that differ from the domain's.
	Compare(ctx context.Context, entries []xcstream.PageEntry, b *Batch) error
	Compared(ctx context.Context, entries []xcstream.PageEntry, b *Batch) (differ []guest.PFN, err error)

	// Record is any other record of the domain's state. body is good only during the call.
	Record(ctx context.Context, t xcstream.Type, body []byte) error

	// Finish is called at END: it completes the domain in the order that Xen wants. The domain is then ready to run.
	Finish(ctx context.Context) (Result, error)

	// Close gives back what the Guest holds. The domain is not its matter.
	Close() error
}

// Batch is the pages of one PAGE_DATA on their way into the guest.
type Batch = xcstream.Batch

// Result is what a toolstack must know of a restored domain.
type Result = guest.Rings
