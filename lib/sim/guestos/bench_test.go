package guestos

import (
	"testing"

	"xenferry/lib/guest"
)

func BenchmarkContents(b *testing.B) {
	page := make([]byte, guest.PageSize)
	for _, bench := range []struct {
		name string
		t    Texture
	}{{"random", Random}, {"text", Text}} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(guest.PageSize)
			for i := range b.N {
				contents(page, 1, guest.PFN(i), 1, bench.t)
			}
		})
	}
}

// BenchmarkGuest builds a guest of 512 MiB and proves it, and lets it write: octets are those of its memory, or of the
// pages written.
func BenchmarkGuest(b *testing.B) {
	for _, kind := range []guest.Kind{guest.PV64, guest.HVM} {
		o := Options{Kind: kind, Pages: 512 << 20 / guest.PageSize, VCPUs: 2, Workload: Workload{Shape: Uniform}}
		b.Run(kind.String()+"/build", func(b *testing.B) {
			b.SetBytes(512 << 20)
			for range b.N {
				b.StopTimer()
				hv := newDomain(b, o)
				b.StartTimer()
				if _, err := Build(hv, o); err != nil {
					b.Fatal(err)
				}
			}
		})
		k := build(b, o)
		b.Run(kind.String()+"/check", func(b *testing.B) {
			b.SetBytes(512 << 20)
			for range b.N {
				passes(b, "built", k.Check())
			}
		})
		b.Run(kind.String()+"/write", func(b *testing.B) {
			b.SetBytes(guest.PageSize)
			c := k.cpus[0]
			for range b.N {
				if err := c.do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
