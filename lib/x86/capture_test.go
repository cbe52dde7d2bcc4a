package x86_test

import (
	"encoding/binary"
	"io"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"

	"xenferry/lib/guest"
	"xenferry/lib/save"
	"xenferry/lib/sim/guestos"
	"xenferry/lib/testkit"
)

// libxcPart is the stream inside an xl save file, and whatever is behind it.
func libxcPart(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(testkit.Capture(t, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	file, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	const xlHeader, libxlHeader, libxcContext = 48, 16, 8
	return file[xlHeader+binary.LittleEndian.Uint32(file[44:])+libxlHeader+libxcContext:]
}

// TestCaptures restores what stock Xen wrote, and saves it again without a difference.
func TestCaptures(t *testing.T) {
	if testing.Short() {
		t.Skip("each stream is more than 100 MiB")
	}
	for _, row := range []struct {
		name  string
		kind  guest.Kind
		vcpus uint32
	}{
		{"xen-4.17.5-pv64-2vcpu-live.xlmigrate.zst", guest.PV64, 2},
		{"xen-4.17.5-pvh-2vcpu-live.xlmigrate.zst", guest.PVH, 2},
		{"xen-4.14.6-pvh-2vcpu-save.xlsave.zst", guest.PVH, 2},
		{"xen-4.17.5-hvm-qemu-1vcpu-save.xlsave.zst", guest.HVM, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			stream := libxcPart(t, row.name)
			o := guestos.Options{Kind: row.kind, VCPUs: row.vcpus, Pages: 168 << 8}
			d := newDomain(t, o, xen417, 3)
			rest, err := d.load(t, stream)
			if err != nil {
				t.Fatal(err)
			}
			c := control{domain: d, suspend: guestos.NewPassive(d.hypervisor(t)).Suspend}
			compareStreams(t, stream[:len(stream)-len(rest)], c.mustSave(t, save.Options{}))
		})
	}
}
