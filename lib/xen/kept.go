package xen

import (
	"errors"
	"sync"

	"xenferry/lib/guest"
)

// maxKept is how many mappings are kept at most. Linux allows a process 65530; of 4 MiB each, as they are at most, these take
// 16 MiB of page tables.
const maxKept = 2048

// kept is mappings that nobody uses any more, of domains that do not run. In a PV control domain Xen has to be asked for
// each page that is unmapped, a fifth of what a save takes, but not when a process ends: Linux then first makes its page
// tables ordinary memory.
type kept struct {
	most  int
	unmap func(mem []byte) error

	mu    sync.Mutex
	count int
	of    map[guest.DomID][][]byte
}

// add keeps mem, of domain id, or gives it back where too many are kept already.
func (k *kept) add(id guest.DomID, mem []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.count == k.most {
		return k.unmap(mem)
	}
	k.of[id] = append(k.of[id], mem)
	k.count++
	return nil
}

// drop gives back what is kept of domain id: it is to run, or to go, and Xen could free no page of it.
func (k *kept) drop(id guest.DomID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	for _, mem := range k.of[id] {
		err = errors.Join(err, k.unmap(mem))
	}
	k.count -= len(k.of[id])
	delete(k.of, id)
	return err
}
