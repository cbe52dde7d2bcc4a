package guest

// Prot says what a Mapping is for.
type Prot uint8

// A writable mapping can also be read. The simulated host takes what is written through it as dirty at its Close; Xen does
// not log what a toolstack writes, so nothing that saves may rely on that.
const (
	ReadOnly Prot = iota
	ReadWrite
)

// Mapping is frames of a domain in this process's address space, in the order they were asked for. They are the
// guest's own pages: they change under the reader while the domain runs, and are gone once the Mapping is closed.
type Mapping struct {
	// Pages holds one slice of PageSize octets for each frame, nil for one that could not be mapped. Neighbours need
	// not be contiguous.
	Pages [][]byte
	// Errs says why a page is nil. It is nil itself when all are mapped.
	Errs []error
	// Unmap gives the mapping back. Its maker sets it; nil where there is nothing to do.
	Unmap func() error
	// Put is Unmap for who is in no hurry: see Leave. Nil where that makes no difference.
	Put func() error
}

// Close gives the mapping back; the pages must not be touched afterwards. Closing twice is harmless.
func (m *Mapping) Close() error {
	if m == nil || m.Unmap == nil {
		return nil
	}
	unmap := m.Unmap
	m.Unmap, m.Put, m.Pages = nil, nil, nil
	return unmap()
}

// Leave is Close for a domain that stays paused or suspended as long as this process lasts. The host may keep the frames
// until the process ends, where that is cheaper, or until it is told to have the domain run on or gone.
func (m *Mapping) Leave() error {
	if m == nil || m.Put == nil {
		return m.Close()
	}
	m.Unmap = m.Put
	return m.Close()
}

// Err is the first of Errs with the index of its frame, or nil when every frame is mapped.
func (m *Mapping) Err() (int, error) {
	for i, err := range m.Errs {
		if err != nil {
			return i, err
		}
	}
	return 0, nil
}
