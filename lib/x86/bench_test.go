package x86_test

import (
	"fmt"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/sim/guestos"
	"xenferry/lib/x86"
	"xenferry/lib/xcstream"
)

// BenchmarkBatch is what loading and placing a batch costs beside moving its octets, as throughput of pages that nobody
// reads or writes.
func BenchmarkBatch(b *testing.B) {
	for _, o := range []guestos.Options{{Kind: guest.PV64, P2M: guestos.Linear}, {Kind: guest.HVM}} {
		o.Pages, o.VCPUs, o.Seed = 256<<8, 1, 1
		d := build(b, o, xen417)
		g, err := x86.OpenSave(b.Context(), d.host, d.id)
		if err != nil {
			b.Fatal(err)
		}
		defer g.Close()
		pfns := make([]guest.PFN, xcstream.MaxBatch)
		var batch xcstream.Batch
		load := func(b *testing.B, at uint64) {
			for i := range pfns {
				pfns[i] = guest.PFN(at + uint64(i))
			}
			if err := g.Load(b.Context(), pfns, &batch); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("load/%v", o.Kind), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(xcstream.MaxBatch * guest.PageSize)
			for at := uint64(0); b.Loop(); at = (at + xcstream.MaxBatch) % o.Pages {
				load(b, at)
				if err := batch.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("place/%v", o.Kind), func(b *testing.B) {
			to := newDomain(b, o, xen417, 2)
			r, err := x86.OpenRestore(b.Context(), to.host, to.id, g.Domain())
			if err != nil {
				b.Fatal(err)
			}
			if o.Kind.PV() {
				if err := r.PVInfo(b.Context(), xcstream.PVInfo{Width: 8, Levels: 4}); err != nil {
					b.Fatal(err)
				}
				if err := r.P2MFrames(b.Context(), xcstream.P2MFrames{End: uint32(o.Pages - 1), Frames: make([]guest.PFN, o.Pages/512)}); err != nil {
					b.Fatal(err)
				}
			}
			var into xcstream.Batch
			b.ReportAllocs()
			b.SetBytes(xcstream.MaxBatch * guest.PageSize)
			for at := uint64(0); b.Loop(); at = (at + xcstream.MaxBatch) % o.Pages {
				b.StopTimer()
				load(b, at)
				b.StartTimer()
				if err := r.Place(b.Context(), batch.Entries, &into); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				for i, page := range batch.Pages {
					copy(into.Pages[i], page)
				}
				if err := batch.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := r.Placed(b.Context(), batch.Entries, &into); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
