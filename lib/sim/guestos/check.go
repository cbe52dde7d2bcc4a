package guestos

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"xenferry/lib/guest"
)

// Check makes the guest prove its memory and its state. The guest must not be running; it may be suspended, or restored
// and not yet told that it runs.
func (k *Kernel) Check() *Report {
	r := &Report{
		State:    k.State().String(),
		Machine:  k.describe(),
		Pages:    k.pages(),
		Writes:   k.Writes(),
		Suspends: le.Uint32(k.info[infoSuspends:]),
		Restores: le.Uint32(k.info[infoRestores:]),
	}
	if err := k.Err(); err != nil {
		r.addf("the guest stopped: %v", err)
	}
	if s := k.State(); s != Running && s != Suspended {
		r.addf("info page: %v", s)
	}
	k.checkPages(r)
	if err := guarded(func() error { k.checkState(r); return nil }); err != nil {
		r.addf("%v", err)
	}
	return r.done()
}

// checkState examines all that is not a page of its own.
func (k *Kernel) checkState(r *Report) {
	k.checkSetUp(r)
	if !k.Kind.PV() {
		k.checkHVMContext(r)
		k.checkHVMParams(r)
		return
	}
	k.checkTree(r)
	k.checkStartInfo(r)
	k.checkSharedInfo(r)
	k.checkPVVCPUs(r)
}

// describe says what the guest is.
func (l *Layout) describe() string {
	s := fmt.Sprintf("%v, %d MiB, %d vCPUs", l.Kind, l.Pages*guest.PageSize>>20, l.VCPUs)
	if l.Kind.PV() {
		s += fmt.Sprintf(", %s P2M", l.P2M)
	}
	return s + fmt.Sprintf(", workload %s", l.Workload.Shape)
}

// sums is what the pages say together.
type sums struct{ written, away, tables, versions uint64 }

func (s *sums) add(o sums) {
	s.written += o.written
	s.away += o.away
	s.tables += o.tables
	s.versions += o.versions
}

// checkPages examines every page of RAM.
func (k *Kernel) checkPages(r *Report) {
	n, workers := k.pages(), uint64(runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	var mu sync.Mutex // r and total
	var total sums
	for w := range workers {
		wg.Go(func() {
			var part Report
			var s sums
			scratch := make([]byte, guest.PageSize)
			for i := n * w / workers; i < n*(w+1)/workers; i++ {
				k.checkPage(&part, &s, i, scratch)
			}
			mu.Lock()
			defer mu.Unlock()
			for f, e := range part.faults {
				r.merge(f, e.Count, e.PFNs...)
			}
			for _, note := range part.Notes {
				r.addf("%s", note)
			}
			r.More += part.More
			total.add(s)
		})
	}
	wg.Wait()
	r.Written, r.Away, r.Tables = total.written, total.away, total.tables
	if total.versions != r.Writes {
		r.addf("pages were written %d times by their records, %d times by the vCPUs'", total.versions, r.Writes)
	}
	away := uint64(0)
	for _, c := range k.cpus {
		away += c.get(cpuAway)
	}
	if total.away != away {
		r.addf("%d pages are ballooned out by their records, %d by the vCPUs'", total.away, away)
	}
}

// checkPage examines the i-th page of RAM.
func (k *Kernel) checkPage(r *Report, s *sums, i uint64, scratch []byte) {
	p, rec := k.pfn(i), k.recordAt(i)
	role, version := rec.role(), rec.version()
	s.versions += uint64(version)
	if version > 0 {
		s.written++
	}
	if int(role) >= len(roleNames) {
		r.add(Altered, p)
		r.addf("pfn %#x: page record names role %d", uint64(p), role)
		return
	}
	m := k.frame(p)
	if role == roleBallooned {
		s.away++
		if m != guest.InvalidMFN {
			r.add(Altered, p)
			r.addf("pfn %#x: ballooned out, but has frame %#x", uint64(p), uint64(m))
		}
		return
	}
	page := k.page(p)
	if page == nil || k.Kind.PV() && k.hv.M2P(m) != p {
		r.add(Missing, p)
		return
	}
	if k.Kind.PV() {
		k.checkType(r, p, m, rec)
	}
	switch role {
	case roleData, rolePool:
		t := k.Fill.texture(k.Seed, p)
		if contents(scratch, k.Seed, p, version, t); !bytes.Equal(page, scratch) {
			r.add(diagnose(page, scratch, k.Seed, p, version, t), p)
		}
	case roleStatic:
		if pageDigest(page) != rec.digest() {
			r.add(Altered, p)
		}
	case roleRing:
		if d := ringDigest(page); d != rec.digest() && (k.Kind.PV() || d != emptyRing) {
			r.add(Altered, p)
		}
	case roleL1, roleL2, roleL3, roleL4:
		s.tables++
		if k.tableDigest(p, role.level(), page) != rec.digest() {
			r.add(Altered, p)
			k.explainTable(r, p, page)
		}
	}
}

// checkType compares a page's type with what the guest uses it as.
func (k *Kernel) checkType(r *Report, p guest.PFN, m guest.MFN, rec record) {
	want := guest.PageType(rec.role().level())
	if rec.pinned() {
		want |= guest.Pinned
	}
	if got := k.hv.PageType(m); got != want {
		r.add(Altered, p)
		r.addf("pfn %#x (%v): the hypervisor says %v, want %v", uint64(p), rec.role(), got, want)
	}
}

// explainTable names entries of a table that lead out of the guest; which entry else is wrong, a digest cannot say.
func (k *Kernel) explainTable(r *Report, p guest.PFN, page []byte) {
	level := k.record(p).role().level()
	from, to := xenSlots(k.Kind, level, k.topL2 == p)
	for i := range entries {
		pte := le.Uint64(page[8*i:])
		if pte&ptePresent != 0 && (i < from || i >= to) && k.entryPFN(pte) == digestForeign {
			r.addf("pfn %#x: entry %d of this L%d leads to frame %#x, which is not the guest's", uint64(p), i, level,
				pte&pteFrameMask>>guest.PageShift)
			return
		}
	}
	r.addf("pfn %#x: an entry of this L%d is not what it was", uint64(p), level)
}

// checkTree compares the lists above the P2M's pages with where those are. They are as a restore leaves them until the
// guest runs again.
func (k *Kernel) checkTree(r *Report) {
	if k.P2M != Tree {
		return
	}
	if fresh, _ := k.restored(); fresh {
		return
	}
	w := k.Kind.Width()
	top := k.page(k.P2MTop)
	leaves := k.p2m.frames
	for i, p := range k.listPages() {
		if top == nil || word(top[i*w:], w) != uint64(k.frame(p)) {
			r.addf("P2M: entry %d of the top list is not the frame of pfn %#x", i, uint64(p))
			return
		}
		list := k.page(p)
		for j := range min(len(leaves), guest.PageSize/w) {
			if list == nil || word(list[j*w:], w) != uint64(leaves[j]) {
				r.addf("P2M: entry %d of list %d is not the frame of its page", j, i)
				return
			}
		}
		leaves = leaves[min(len(leaves), guest.PageSize/w):]
	}
}

// restored reports whether the guest is as a restore left it, not yet told that it runs: start_info then has frames
// where a suspended guest has PFNs.
func (k *Kernel) restored() (bool, error) {
	page := k.page(k.StartInfo)
	if page == nil {
		return false, fmt.Errorf("start_info has no frame")
	}
	s, w := startOf(k.Kind), k.Kind.Width()
	return k.State() == Suspended && word(page[s.storeMFN:], w) != uint64(k.Store), nil
}

// checkStartInfo compares start_info with what the guest knows, in the form of its state.
func (k *Kernel) checkStartInfo(r *Report) {
	page := k.page(k.StartInfo)
	if page == nil {
		return // Missing already
	}
	want := make([]byte, guest.PageSize)
	k.writeStartInfo(want)
	if fresh, _ := k.restored(); k.State() == Suspended && !fresh {
		s, w := startOf(k.Kind), k.Kind.Width()
		putWord(want[s.storeMFN:], w, uint64(k.Store))
		putWord(want[s.consoleMFN:], w, uint64(k.Console))
	}
	r.compare("start_info", page, want)
}

// checkSharedInfo compares shared_info with what the guest keeps there. A restored guest that has not run has neither
// let events through nor told where its P2M is.
func (k *Kernel) checkSharedInfo(r *Report) {
	page, _ := k.hv.SharedInfo()
	if page == nil {
		r.addf("no shared_info")
		return
	}
	s, w := sharedOf(k.Kind), k.Kind.Width()
	for n := range k.Online {
		want := k.vcpuInfo(n)
		r.compare(fmt.Sprintf("shared_info: vCPU %d", n), page[64*n:64*n+64], want[:])
	}
	if got := word(page[s.arch:], w); got != k.span() {
		r.addf("shared_info: max_pfn %#x, want %#x", got, k.span())
	}
	want := slices.Clone(page)
	k.bindPorts(want)
	mask := page[s.mask : s.mask+s.ports]
	closed := bytes.Count(mask, []byte{0xFF}) == len(mask)
	if k.State() != Suspended || !closed {
		r.compare("shared_info: event mask", mask, want[s.mask:s.mask+s.ports])
	}
	if fresh, _ := k.restored(); fresh {
		if !closed {
			r.addf("shared_info: events let through in a restored domain that has not run")
		}
		if got := word(page[s.frameListList:], w); got != 0 {
			r.addf("shared_info: frame_list_list %#x in a restored domain that has not run", got)
		}
		return
	}
	k.showP2M(want)
	r.compare("shared_info: P2M", page[s.frameListList:s.generation+w], want[s.frameListList:s.generation+w])
}
