// Package save copies a domain into a libxc stream: it asks a Guest for batches of pages, writes them round by round
// while the guest runs, has it suspended, writes what is left and then its state. It knows no hypervisor and no
// descriptor.
package save

import (
	"context"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// Guest is what saving asks of a domain of one type; lib/x86 has one for PV and one for HVM. Its methods are called by
// one goroutine at a time, in the order of their listing but for Load, Dirty and CheckRunning, which alternate.
type Guest interface {
	// Domain is what the stream's domain header says.
	Domain() xcstream.DomainHeader

	// Static is the records before STATIC_DATA_END, Begin those between it and the first page: a PV guest's
	// X86_PV_P2M_FRAMES.
	Static(ctx context.Context) ([]xcstream.Record, error)
	Begin(ctx context.Context) ([]xcstream.Record, error)

	// Frames is the length of the guest's physical address space: its pages are PFN 0 to Frames()-1, though many of
	// them need not be there. Only Suspended changes it, and never to less.
	Frames() uint64

	// StartLog begins the log of dirty pages, StopLog ends it; without a log it does nothing.
	StartLog(ctx context.Context) error
	StopLog(ctx context.Context) error

	// Dirty sets dirty to what was written since the log began or was last read, and empties the log. It returns how
	// many pages that are. final is set once, after Suspended. PeekDirty leaves the log as it is.
	Dirty(ctx context.Context, dirty guest.Bitmap, final bool) (uint64, error)
	PeekDirty(ctx context.Context, dirty guest.Bitmap) (uint64, error)

	// Load sets b to the present state of pfns, which ascend and are at most xcstream.MaxBatch. A page of a running
	// guest that cannot be read in a consistent state is XTab in b and named in b.Deferred: it must be sent later. Once
	// the guest is suspended such a page is an error. Earlier batches may still be open.
	Load(ctx context.Context, pfns []guest.PFN, b *Batch) error

	// CheckRunning is called after every round while the guest runs: an error ends the migration, as when the guest's
	// P2M cannot be found any more.
	CheckRunning(ctx context.Context) error

	// Suspended is called once the guest is suspended. It looks at all that may have changed without a mark in the
	// log: which pages there are and of what type, where the P2M is. It returns records to be sent before any more
	// page, and the pages to be sent in the final pass beside the dirty and deferred ones, as a bitmap of Frames() bits.
	Suspended(ctx context.Context) ([]xcstream.Record, guest.Bitmap, error)

	// End is the records between the last page and END: the state of the domain and its vCPUs.
	End(ctx context.Context) ([]xcstream.Record, error)

	// Close gives back what the Guest holds. The log is not its matter.
	Close() error
}

// Batch is pages on their way into a PAGE_DATA.
type Batch = xcstream.Batch
