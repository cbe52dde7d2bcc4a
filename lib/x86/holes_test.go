package x86

import (
	"context"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// emptyHost is a PVH domain of which almost every frame is a hole, as the smallest has below 4 GiB: 64 MiB from frame 0
// on and the special pages at its end.
type emptyHost struct {
	Host
	page []byte
}

func (emptyHost) Release() guest.Release { return guest.Release{Major: 4, Minor: 17} }

func (emptyHost) Info(context.Context, guest.DomID) (guest.Info, error) {
	return guest.Info{ID: 1, Kind: guest.PVH}, nil
}

func (emptyHost) MaxGFN(context.Context, guest.DomID) (guest.GFN, error) { return 1<<20 - 1, nil }

func (emptyHost) PageTypes(_ context.Context, _ guest.DomID, gfns []guest.GFN, types []guest.PageType) error {
	for i, g := range gfns {
		if types[i] = guest.XTab; g < 64<<8 || g > 1<<20-8 {
			types[i] = guest.NoTab
		}
	}
	return nil
}

func (h emptyHost) Map(_ context.Context, _ guest.DomID, gfns []guest.GFN, _ guest.Prot) (*guest.Mapping, error) {
	m := &guest.Mapping{Pages: make([][]byte, len(gfns))}
	for i := range m.Pages {
		m.Pages[i] = h.page
	}
	return m, nil
}

// BenchmarkHoles is what the whole address space of such a guest costs beside hypercalls: in a round, and when it is
// suspended.
func BenchmarkHoles(b *testing.B) {
	g, err := OpenSave(b.Context(), emptyHost{page: make([]byte, guest.PageSize)}, 1)
	if err != nil {
		b.Fatal(err)
	}
	w := xcstream.NewWriter(nowhere{})
	var batch xcstream.Batch
	pfns := make([]guest.PFN, xcstream.MaxBatch)
	b.Run("round", func(b *testing.B) {
		for b.Loop() {
			for at := uint64(0); at < g.Frames(); at += xcstream.MaxBatch {
				for i := range pfns {
					pfns[i] = guest.PFN(at + uint64(i))
				}
				if err := g.Load(b.Context(), pfns, &batch); err != nil {
					b.Fatal(err)
				}
				if err := w.PageData(batch.Entries, batch.Pages); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(g.Frames()), "ns/PFN")
	})
	b.Run("suspended", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := g.Suspended(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(g.Frames()), "ns/PFN")
	})
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

func (nowhere) WriteVec(bufs [][]byte) (n int, _ error) {
	for _, b := range bufs {
		n += len(b)
	}
	return n, nil
}
