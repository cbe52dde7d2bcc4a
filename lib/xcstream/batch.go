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
	// Mapping is what Pages are of. Nil where they are in memory of our own.
	Mapping *guest.Mapping
}

// Close gives the batch's pages back.
func (b *Batch) Close() error {
	m := b.drop()
	return m.Close()
}

// Leave is Close as guest.Mapping.Leave is.
func (b *Batch) Leave() error {
	m := b.drop()
	return m.Leave()
}

func (b *Batch) drop() *guest.Mapping {
	m := b.Mapping
	b.Pages, b.Mapping = b.Pages[:0], nil
	return m
}
