package guestos

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/google/uuid"
	"github.com/zeebo/xxh3"

	"xenferry/lib/guest"
)

// Witness is what a suspended guest's memory held, kept outside its hosts and the stream: a copy that is consistent but
// old proves itself, yet not this. Pages are digested as the stream would carry them, frame numbers as PFNs, and without
// what a restore must rewrite by its nature.
type Witness struct {
	UUID   uuid.UUID  `json:"uuid"`
	Kind   guest.Kind `json:"kind"`
	Writes uint64     `json:"writes"` // the guest's write counter
	Words  []byte     `json:"words"`  // for each page of RAM: digest u64, version u32, little-endian
}

// witnessWord is the size of one page's digest and version.
const witnessWord = 12

// Witness digests all pages of a suspended guest.
func (k *Kernel) Witness() *Witness {
	n, workers := k.pages(), uint64(runtime.GOMAXPROCS(0))
	w := &Witness{UUID: k.hv.Spec().UUID, Kind: k.Kind, Writes: k.Writes(), Words: make([]byte, witnessWord*n)}
	var wg sync.WaitGroup
	for part := range workers {
		wg.Go(func() {
			scratch := make([]byte, guest.PageSize)
			for i := n * part / workers; i < n*(part+1)/workers; i++ {
				le.PutUint64(w.Words[witnessWord*i:], k.digest(i, scratch))
				le.PutUint32(w.Words[witnessWord*i+8:], k.recordAt(i).version())
			}
		})
	}
	wg.Wait()
	return w
}

// digest is that of the i-th page of RAM: 0 for one that has no frame or is not the guest's alone to write.
func (k *Kernel) digest(i uint64, scratch []byte) uint64 {
	p, role := k.pfn(i), k.recordAt(i).role()
	page := k.page(p)
	if page == nil {
		return 0
	}
	switch {
	case role == roleRing:
		return 0
	case role == roleP2M, role == roleP2MList:
		return k.digestFrames(page, role, scratch)
	case role.level() > 0:
		return k.digestTable(page, p, role.level(), scratch)
	case role == roleStartInfo:
		copy(scratch, page)
		s, w := startOf(k.Kind), k.Kind.Width()
		clear(scratch[s.nrPages : s.consoleEvtchn+4]) // all that a restore rewrites, up to the console's port
		putWord(scratch[s.nrPages:], w, word(page[s.nrPages:], w))
		return xxh3.Hash(scratch)
	}
	return xxh3.Hash(page)
}

// digestFrames is the digest of a page of frame numbers, each as the PFN it has.
func (k *Kernel) digestFrames(page []byte, r role, scratch []byte) uint64 {
	if fresh, _ := k.restored(); fresh && r == roleP2MList {
		return 0 // stale until the guest runs
	}
	w := k.Kind.Width()
	copy(scratch, page)
	for at := 0; at < guest.PageSize; at += w {
		m := guest.MFN(word(page[at:], w))
		if p, ok := k.owns(m); ok {
			putWord(scratch[at:], w, uint64(p))
		}
	}
	return xxh3.Hash(scratch)
}

// digestTable is the digest of a page table as PFNs, without Xen's entries.
func (k *Kernel) digestTable(page []byte, p guest.PFN, level int, scratch []byte) uint64 {
	copy(scratch, page)
	for i := range entries {
		if pte := le.Uint64(page[8*i:]); pte&ptePresent != 0 {
			le.PutUint64(scratch[8*i:], pte&^pteFrameMask|k.entryPFN(pte)<<guest.PageShift)
		}
	}
	from, to := xenSlots(k.Kind, level, k.topL2 == p)
	clear(scratch[8*from : 8*to])
	return xxh3.Hash(scratch)
}

// CheckAgainst is Check, and compares with a witness besides. A copy that has not run has every page as the witness saw
// it; one that has run has every page at that version or a later one, and those at the same version unchanged.
func (k *Kernel) CheckAgainst(w *Witness) *Report {
	r := k.Check()
	r.Witness = true
	k.compareWitness(r, w)
	return r.done()
}

func (k *Kernel) compareWitness(r *Report, w *Witness) {
	n := k.pages()
	if w.UUID != k.hv.Spec().UUID || w.Kind != k.Kind || uint64(len(w.Words)) != witnessWord*n {
		r.addf("witness of another guest: %v, %v with %d pages", w.UUID, w.Kind, len(w.Words)/witnessWord)
		return
	}
	ran := k.State() != Suspended
	if writes := k.Writes(); writes < w.Writes || writes != w.Writes && !ran {
		r.addf("write counter %d, the witness saw %d", writes, w.Writes)
	}
	scratch := make([]byte, guest.PageSize)
	for i := range n {
		seen, version := le.Uint64(w.Words[witnessWord*i:]), le.Uint32(w.Words[witnessWord*i+8:])
		p, rec := k.pfn(i), k.recordAt(i)
		switch now := rec.version(); {
		case int(rec.role()) >= len(roleNames):
			continue // Altered already
		case now < version:
			r.add(Stale, p)
			continue
		case now > version && !ran:
			r.add(Ahead, p)
			continue
		case ran && (now > version || changes(rec.role())):
			continue // proven by itself
		}
		r.Compared++
		if got := k.digest(i, scratch); got != seen && got != 0 {
			r.add(Stale, p)
		} else if got == 0 && seen != 0 && rec.role() != roleP2MList && rec.role() != roleRing {
			r.add(Missing, p)
		}
	}
}

// changes reports whether pages of a role change while the guest runs without a version that counts it.
func changes(r role) bool { return r == roleRecords || r == roleP2M || r == roleP2MList }

// WriteFile writes the witness, whole or not at all.
func (w *Witness) WriteFile(name string) (err error) {
	b, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("witness: %w", err)
	}
	return nil
}

// ReadWitness reads what WriteFile wrote.
func ReadWitness(name string) (*Witness, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	w := new(Witness)
	if err := json.Unmarshal(b, w); err != nil {
		return nil, fmt.Errorf("witness %s: %w", name, err)
	}
	return w, nil
}
