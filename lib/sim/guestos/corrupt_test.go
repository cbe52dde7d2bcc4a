package guestos

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"xenferry/lib/guest"
)

// find is the first page of a role that holds, by its record, what ok wants.
func find(t tb, k *Kernel, ok func(r record) bool) guest.PFN {
	t.Helper()
	for i := range k.pages() {
		if ok(k.recordAt(i)) {
			return k.pfn(i)
		}
	}
	t.Fatal("the guest has no such page")
	return 0
}

func written(r record) bool { return r.role() == roleData && r.version() > 1 }

func hasRole(want role) func(record) bool { return func(r record) bool { return r.role() == want } }

// entryOf is the page table, and the entry in it, by which the direct map has page p.
func entryOf(t tb, k *Kernel, p guest.PFN) (page []byte, i int) {
	t.Helper()
	va, _ := k.space.directAddr(p)
	table, i, err := k.lookup(va, 1)
	if err != nil {
		t.Fatal(err)
	}
	return k.page(table), i
}

// has reports whether r found fault f at p.
func (r *Report) has(f Fault, p guest.PFN) bool {
	return slices.ContainsFunc(r.Findings, func(e Finding) bool { return e.Fault == f && slices.Contains(e.PFNs, p) })
}

// TestPageCorruption spoils one page of a suspended guest at a time, and wants the check to name what happened to it.
func TestPageCorruption(t *testing.T) {
	for _, o := range kinds() {
		o.Pages, o.VCPUs, o.Seed, o.Fill = 1500, 2, 7, Fill{Zero: 0.1, Text: 0.3}
		o.Workload.Shape = Uniform
		k := build(t, o)
		step(t, k, 3000)
		suspend(t, k)
		w := k.Witness()
		p := find(t, k, written)
		other := find(t, k, func(r record) bool { return written(r) && !bytes.Equal(r, k.record(p)) })
		version, texture := k.record(p).version(), k.Fill.texture(k.Seed, p)
		for _, c := range []struct {
			name  string
			spoil func(page []byte)
			want  Fault
		}{
			{"dropped", func(b []byte) { clear(b) }, Lost},
			{"never sent again", func(b []byte) { contents(b, k.Seed, p, 0, texture) }, Lost},
			{"one version too old", func(b []byte) { contents(b, k.Seed, p, version-1, texture) }, Stale},
			{"one version too new", func(b []byte) { contents(b, k.Seed, p, version+1, texture) }, Ahead},
			{"torn in the middle", func(b []byte) {
				old := make([]byte, guest.PageSize)
				contents(old, k.Seed, p, version-1, texture)
				copy(b[2048:], old[2048:])
			}, Torn},
			{"torn before the middle", func(b []byte) {
				old := make([]byte, guest.PageSize)
				contents(old, k.Seed, p, version-1, texture)
				copy(b[:512], old[:512])
			}, Torn},
			{"another's", func(b []byte) { copy(b, k.page(other)) }, Foreign},
			{"another guest's", func(b []byte) { contents(b, k.Seed+1, p, version, texture) }, Foreign},
			{"one bit", func(b []byte) { b[4095] ^= 0x10 }, Torn},
			{"scrubbed", func(b []byte) {
				for i := range b {
					b[i] = 0xC2
				}
			}, Corrupt},
		} {
			page := k.page(p)
			good := bytes.Clone(page)
			c.spoil(page)
			if r := k.Check(); r.OK || !r.has(c.want, p) || len(r.Findings) != 1 {
				t.Errorf("%v %s: %s: check says %+v %v, want %s", o.Kind, o.P2M, c.name, r.Findings, r.Notes, c.want)
			}
			copy(page, good)
		}
		passes(t, "all put back", k.CheckAgainst(w))
	}
}

// TestKernelCorruption spoils what is not data.
func TestKernelCorruption(t *testing.T) {
	type spoiler struct {
		name string
		do   func(t *testing.T, k *Kernel) (undo func())
	}
	// at spoils one octet of the page that pick finds.
	at := func(name string, off int, pick func(record) bool) spoiler {
		return spoiler{name, func(t *testing.T, k *Kernel) func() {
			page := k.page(find(t, k, pick))
			page[off] ^= 0x40
			return func() { page[off] ^= 0x40 }
		}}
	}
	all := []spoiler{
		at("static page", 100, hasRole(roleStatic)),
		{"counter of a vCPU", func(_ *testing.T, k *Kernel) func() {
			k.cpus[0].set(cpuWrites, k.cpus[0].get(cpuWrites)+1)
			return func() { k.cpus[0].set(cpuWrites, k.cpus[0].get(cpuWrites)-1) }
		}},
		{"entry of a page table", func(t *testing.T, k *Kernel) func() {
			page, i := entryOf(t, k, find(t, k, written))
			page[8*i+2] ^= 1 // the frame
			return func() { page[8*i+2] ^= 1 }
		}},
		{"rights in a page table", func(t *testing.T, k *Kernel) func() {
			page, i := entryOf(t, k, find(t, k, written))
			page[8*i] ^= 0x20 // accessed
			return func() { page[8*i] ^= 0x20 }
		}},
		{"two data pages swapped", func(t *testing.T, k *Kernel) func() {
			a := find(t, k, written)
			b := find(t, k, func(r record) bool { return written(r) && !bytes.Equal(r, k.record(a)) })
			swap := func() {
				c := bytes.Clone(k.page(a))
				copy(k.page(a), k.page(b))
				copy(k.page(b), c)
			}
			swap()
			return swap
		}},
	}
	pv := []spoiler{
		at("start_info", 33, hasRole(roleStartInfo)),
		at("start_info's own part", 4000, hasRole(roleStartInfo)),
		{"entry of the P2M", func(t *testing.T, k *Kernel) func() {
			p := find(t, k, written)
			m := k.frame(p)
			k.setFrame(p, m^1)
			return func() { k.setFrame(p, m) }
		}},
		{"entry of the P2M gone", func(t *testing.T, k *Kernel) func() {
			p := find(t, k, written)
			m := k.frame(p)
			k.setFrame(p, guest.InvalidMFN)
			return func() { k.setFrame(p, m) }
		}},
		{"two entries of the P2M swapped", func(t *testing.T, k *Kernel) func() {
			a := find(t, k, written)
			b := find(t, k, func(r record) bool { return written(r) && !bytes.Equal(r, k.record(a)) })
			swap := func() {
				m, n := k.frame(a), k.frame(b)
				k.setFrame(a, n)
				k.setFrame(b, m)
			}
			swap()
			return swap
		}},
		{"unpinned table", func(t *testing.T, k *Kernel) func() {
			p := find(t, k, func(r record) bool { return r.role() == roleL1 && r.pinned() })
			if err := k.hv.Unpin(k.frame(p)); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := k.hv.Pin(guest.PinOp{MFN: k.frame(p), Level: 1}); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"shared_info: vCPU", func(_ *testing.T, k *Kernel) func() {
			page, _ := k.hv.SharedInfo()
			page[64+40] ^= 1
			return func() { page[64+40] ^= 1 }
		}},
		{"shared_info: max_pfn", func(_ *testing.T, k *Kernel) func() {
			page, _ := k.hv.SharedInfo()
			page[sharedOf(k.Kind).arch] ^= 1
			return func() { page[sharedOf(k.Kind).arch] ^= 1 }
		}},
		{"shared_info: P2M", func(_ *testing.T, k *Kernel) func() {
			page, _ := k.hv.SharedInfo()
			at := sharedOf(k.Kind).p2mVAddr + 3
			if k.P2M == Tree {
				at = sharedOf(k.Kind).frameListList
			}
			page[at] ^= 1
			return func() { page[at] ^= 1 }
		}},
		{"vCPU's trap table", func(t *testing.T, k *Kernel) func() {
			flip := func() {
				c, err := k.hv.VCPUContext(1)
				if err != nil {
					t.Fatal(err)
				}
				c[contextOf(k.Kind).traps+4] ^= 1
				if err := k.hv.SetVCPUContext(1, c); err != nil {
					t.Fatal(err)
				}
			}
			flip()
			return flip
		}},
		{"vCPU's MSR", func(t *testing.T, k *Kernel) func() {
			set := func(v uint64) {
				if err := k.hv.SetVCPUMSRs(1, []guest.MSR{{Index: 0xC0000103, Value: v}}); err != nil {
					t.Fatal(err)
				}
			}
			set(9)
			return func() { set(2) }
		}},
	}
	tree := []spoiler{{"list of the P2M's pages", func(_ *testing.T, k *Kernel) func() {
		page := k.page(k.listPages()[0])
		page[0] ^= 1
		return func() { page[0] ^= 1 }
	}}}
	hvm := []spoiler{
		at("a ring that is not clear", 9, hasRole(roleRing)),
		{"register", func(t *testing.T, k *Kernel) func() {
			flip := func() {
				blob, err := k.hv.HVMContext()
				if err != nil {
					t.Fatal(err)
				}
				cpu, err := findHVMRecord(blob, hvmCPU, 1)
				if err != nil {
					t.Fatal(err)
				}
				cpu[hvmRIP] ^= 1
				if err := k.hv.SetHVMContext(blob); err != nil {
					t.Fatal(err)
				}
			}
			flip()
			return flip
		}},
		{"page's frame gone", func(t *testing.T, k *Kernel) func() {
			p := find(t, k, written)
			page := bytes.Clone(k.page(p))
			if err := k.hv.Depopulate([]guest.GFN{guest.GFN(p)}); err != nil {
				t.Fatal(err)
			}
			return func() {
				if _, err := k.hv.Populate([]guest.PFN{p}); err != nil {
					t.Fatal(err)
				}
				copy(k.page(p), page)
			}
		}},
	}
	for _, o := range kinds() {
		o.Pages, o.VCPUs, o.Seed, o.Workload.Shape = 1500, 2, 9, Uniform
		k := build(t, o)
		step(t, k, 2000)
		suspend(t, k)
		spoilers := slices.Clone(all)
		switch {
		case o.P2M == Tree:
			spoilers = append(append(spoilers, pv...), tree...)
		case o.Kind.PV():
			spoilers = append(spoilers, pv...)
		default:
			spoilers = append(spoilers, hvm...)
		}
		for _, s := range spoilers {
			undo := s.do(t, k)
			if r := k.Check(); r.OK {
				t.Errorf("%v %s: %s: not noticed", o.Kind, o.P2M, s.name)
			}
			undo()
			passes(t, fmt.Sprintf("%v %s: %s put back", o.Kind, o.P2M, s.name), k.Check())
		}
	}
}

// TestWitness drops what was written after a moment, as a save without its final pass does: the copy is consistent, so
// that it proves itself, and only the witness knows better.
func TestWitness(t *testing.T) {
	for _, o := range kinds() {
		o.Pages, o.VCPUs, o.Seed, o.Workload.Shape = 1500, 2, 11, Zipf
		k := build(t, o)
		step(t, k, 1000)
		suspend(t, k)
		old := map[guest.PFN][]byte{}
		for i := range k.pages() {
			old[k.pfn(i)] = bytes.Clone(k.page(k.pfn(i)))
		}
		k.Resumed(true)
		step(t, k, 50)
		suspend(t, k)
		w := k.Witness()
		passes(t, "whole", k.CheckAgainst(w))
		for p, page := range old {
			copy(k.page(p), page)
		}
		passes(t, "old and consistent", k.Check())
		r := k.CheckAgainst(w)
		if r.OK || len(r.Findings) == 0 || r.Findings[0].Fault != Stale || len(r.Notes) == 0 {
			t.Errorf("%v %s: witness says %+v %v", o.Kind, o.P2M, r.Findings, r.Notes)
		}
		k.Resumed(false)
		step(t, k, 10)
		if r := k.CheckAgainst(w); r.OK {
			t.Errorf("%v %s: an old copy that has run passes", o.Kind, o.P2M)
		}
	}
}

// TestWitnessOfOne drops a single page that no record of the guest's tells of.
func TestWitnessOfOne(t *testing.T) {
	o := Options{Kind: guest.PV64, P2M: Linear, Pages: 1500, VCPUs: 1, Seed: 3}
	o.Workload.Shape = Uniform
	k := build(t, o)
	step(t, k, 100)
	suspend(t, k)
	w := k.Witness()
	c := k.cpus[0]
	step(t, k, 5) // as if it had run on behind the witness
	r := k.CheckAgainst(w)
	if r.OK {
		t.Error("a copy that was changed before it ran passes")
	}
	if c.get(cpuWrites) <= w.Writes {
		t.Error("no writes")
	}
}

// TestWitnessFile reads back what was written.
func TestWitnessFile(t *testing.T) {
	o := Options{Kind: guest.PVH, Pages: 1000, VCPUs: 1}
	k := build(t, o)
	suspend(t, k)
	name := t.TempDir() + "/witness"
	if err := k.Witness().WriteFile(name); err != nil {
		t.Fatal(err)
	}
	w, err := ReadWitness(name)
	if err != nil {
		t.Fatal(err)
	}
	passes(t, "read back", k.CheckAgainst(w))
	w.UUID[0] ^= 1
	if k.CheckAgainst(w).OK {
		t.Error("another guest's witness passes")
	}
}
