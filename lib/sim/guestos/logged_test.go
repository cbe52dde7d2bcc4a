package guestos

import (
	"bytes"
	"fmt"
	"testing"

	"xenferry/lib/guest"
)

// logged keeps a copy of a guest's memory as a saver would have it that takes each page the moment the log tells of it.
type logged struct {
	Hypervisor
	copied map[guest.MFN][]byte
}

func (l *logged) copy(m guest.MFN) {
	if page := l.Page(m); page != nil {
		l.copied[m] = bytes.Clone(page)
	}
}

func (l *logged) Wrote(m guest.MFN) {
	l.Hypervisor.Wrote(m)
	l.copy(m)
}

func (l *logged) WritePTE(table guest.MFN, index int, pte uint64) error {
	defer l.copy(table)
	return l.Hypervisor.WritePTE(table, index, pte)
}

// Pin fills in Xen's own entries, and is logged for it.
func (l *logged) Pin(op guest.PinOp) error {
	defer l.copy(op.MFN)
	return l.Hypervisor.Pin(op)
}

// behind are the pages of RAM whose copy is not what they hold.
func (l *logged) behind(k *Kernel) (pfns []guest.PFN) {
	for i := range k.pages() {
		p := k.pfn(i)
		m := k.frame(p)
		page := l.Page(m)
		if page == nil {
			continue
		}
		if c, ok := l.copied[m]; !ok {
			l.copy(m) // it is the guest's only now
		} else if !bytes.Equal(c, page) {
			pfns = append(pfns, p)
		}
	}
	return pfns
}

// TestLogged: the guest tells the log of each write when it has happened, not before: what the log was told last of a
// page is what the page holds.
func TestLogged(t *testing.T) {
	for _, o := range kinds() {
		for _, shape := range Shapes {
			o.Pages, o.VCPUs, o.Seed, o.Workload.Shape = MinPages+64, 2, 7, shape
			t.Run(fmt.Sprintf("%v %s %s", o.Kind, o.P2M, shape), func(t *testing.T) {
				k := build(t, o)
				l := &logged{k.hv, map[guest.MFN][]byte{}}
				k.hv = l
				same := func(when string) {
					t.Helper()
					for _, p := range l.behind(k) {
						t.Fatalf("%s: pfn %#x (%v) was written behind the log's back", when, uint64(p), k.record(p).role())
					}
				}
				same("built")
				for i := range 300 {
					step(t, k, 1)
					same(fmt.Sprintf("step %d", i))
				}
				suspend(t, k)
				same("suspended")
				k.Resumed(true)
				same("resumed")
			})
		}
	}
}
