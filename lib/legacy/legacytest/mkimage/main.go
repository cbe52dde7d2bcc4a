// Command mkimage writes a legacy image of any size to standard output, to measure conversions with.
//
//	usage: go run ./lib/legacy/legacytest/mkimage [-mib N] [-width 32|64] [-guest pv|hvm]
//
// The guest has N MiB of memory (1024), all sent once in batches of 1024 pages of random octets.
package main

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"xenferry/lib/guest"
	"xenferry/lib/legacy"
	"xenferry/lib/legacy/legacytest"
	"xenferry/lib/xcstream"
)

func main() {
	mib := flag.Uint64("mib", 1024, "")
	width := flag.Int("width", 64, "")
	kind := flag.String("guest", "hvm", "")
	flag.Parse()
	if err := write(os.Stdout, *mib<<20>>guest.PageShift, legacy.Width(*width/8), *kind == "pv"); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

// write writes the image batch by batch.
func write(out io.Writer, pages uint64, width legacy.Width, pv bool) error {
	const batch = 1024
	r := rand.New(rand.NewPCG(1, 2))
	contents := make([]byte, batch*guest.PageSize)
	for i := range contents {
		contents[i] = byte(r.Uint32())
	}
	w := &legacytest.Writer{Width: width}
	w.Size(pages)
	if pv {
		w.ExtInfo(legacytest.Block{ID: "vcpu", Data: make([]byte, xcstream.VCPUContextSize64)})
		w.P2M(make([]uint64, (pages+511)/512))
	}
	w.TSC(guest.TSC{Mode: 1})
	for first := uint64(0); first < pages; first += batch {
		entries := make([]uint64, min(batch, pages-first))
		for i := range entries {
			entries[i] = legacytest.Entry(guest.PFN(first+uint64(i)), guest.NoTab)
		}
		rest := contents
		w.Batch(entries, func(_ uint64, p []byte) { rest = rest[copy(p, rest):] })
		if _, err := out.Write(w.B); err != nil {
			return err
		}
		w.B = w.B[:0]
	}
	w.VCPUInfo(0, 1)
	w.Chunk(legacy.ChunkLastCheckpoint)
	w.Chunk(legacy.ChunkEnd)
	if pv {
		w.Unmapped(nil)
		w.VCPU(legacytest.VCPU{Context: make([]byte, xcstream.VCPUContextSize64)})
		w.Octets(make([]byte, guest.PageSize))
	} else {
		w.MagicPFNs(0xfeffc, 0xfeffd, 0xfeffe)
		w.Blob(legacytest.HVMContext(1, func([]byte) {}))
		w.QEMU(legacy.QEMULibxl, make([]byte, 100<<10))
	}
	_, err := out.Write(w.B)
	return err
}
