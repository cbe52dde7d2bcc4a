package xcstream

import "xenferry/lib/guest"

// Batch is the pages of one PAGE_DATA between a domain and a stream: its owner hands it to a guest type, which sets the
// pages, and moves them while it is open. It is used again for batch after batch, so that its memory is.
type Batch struct {
	// Entries is what a saved guest type makes of the PFNs asked for, one each. Restoring has them from the stream.
	Entries []PageEntry
	// Pages has one page for each entry whose type has data, in the order of the entries.
	Pages [][]byte
	// Deferred are the PFNs of a saved guest that could not be read in a consistent state.
	Deferred []guest.PFN
	// Scratch is memory that a guest type may use for copies of pages; it stays with the Batch.
	Scratch []byte
	// Release ends the use of Pages. Nil where nothing has to be done.
	Release func() error
}

// Close gives the batch's pages back.
func (b *Batch) Close() error {
	b.Pages = b.Pages[:0]
	if b.Release == nil {
		return nil
	}
	release := b.Release
	b.Release = nil
	return release()
}
