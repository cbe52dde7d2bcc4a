package xen

import (
	"errors"
	"sync"

	"xenferry/lib/guest"
)

// maxKept is how many pages of domains are kept mapped at most: their page tables take 2 octets in a thousand of that.
const maxKept = 8 << 30 / guest.PageSize

// kept is mappings that nobody uses any more, of domains that do not run. In a PV control domain Xen has to be asked for
// each page that is unmapped, a fifth of what a save takes, but not when a process ends: Linux then first makes its page
// tables ordinary memory.
type kept struct {
	most  int // pages
	unmap func(mem []byte) error

	mu    sync.Mutex
	pages int
	of    map[guest.DomID][][]byte
}

// add keeps mem, of domain id, or gives it back where too much is kept already.
func (k *kept) add(id guest.DomID, mem []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	pages := len(mem) / guest.PageSize
	if k.pages+pages > k.most {
		return k.unmap(mem)
	}
	k.of[id] = append(k.of[id], mem)
	k.pages += pages
	return nil
}

// drop gives back what is kept of domain id: it is to run, or to go, and Xen could free no page of it.
func (k *kept) drop(id guest.DomID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	for _, mem := range k.of[id] {
		k.pages -= len(mem) / guest.PageSize
		err = errors.Join(err, k.unmap(mem))
	}
	delete(k.of, id)
	return err
}
