package legacy_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/legacy"
	"xenferry/lib/legacy/legacytest"
	"xenferry/lib/record"
	"xenferry/lib/verify"
	"xenferry/lib/xcstream"
)

// judge verifies a converted stream strictly. A libxc stream's QEMU record is behind its end.
func judge(t *testing.T, img legacytest.Image, stream []byte) *verify.Report {
	t.Helper()
	opts := verify.Options{Layer: verify.LibXC, Pedantic: true, AllowTrailing: true}
	if img.Format == legacy.LibXL {
		opts = verify.Options{Layer: verify.LibXL, Pedantic: true}
	}
	report, err := verify.Verify(bytes.NewReader(stream), opts)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// TestVerified: what a writer of Xen 4.5 can have made converts to streams that hold no surprise, neither to us nor to Xen's
// verifier. That refuses all xenstore data, as it takes octets for text.
func TestVerified(t *testing.T) {
	ref := newReference(t, "verify-stream-v2")
	count := uint64(100)
	if full() {
		count = 1000
	}
	file := filepath.Join(t.TempDir(), "stream")
	theirs := 0
	for seed := range count {
		img := legacytest.Genuine(seed)
		stream, _, err := convert(img, false)
		if err != nil {
			t.Fatalf("%s: %v", img.What, err)
		}
		if r := judge(t, img, stream); !r.Valid {
			t.Fatalf("%s: %v", img.What, r.Error.Err())
		}
		if img.Xenstore {
			continue
		}
		if err := os.WriteFile(file, stream, 0o600); err != nil {
			t.Fatal(err)
		}
		if status := ref.run("-q", "-f", formats[img.Format], "-i", file); status != 0 {
			t.Errorf("%s: Xen's verifier refuses it", img.What)
		}
		theirs++
	}
	t.Logf("%d streams are valid, %d of them were shown to Xen's verifier", count, theirs)
}

// TestDegenerate: an image that no writer makes becomes a stream as bad as it is, and verifying it says what is wrong.
func TestDegenerate(t *testing.T) {
	page := func(_ uint64, p []byte) {}
	for _, row := range []struct {
		name   string
		what   error
		record string
		spoil  func(w *legacytest.Writer)
		blob   []byte
	}{
		{"a batch of entries without a PFN", record.ErrValue, "PAGE_DATA",
			func(w *legacytest.Writer) { w.Batch([]uint64{legacytest.Bare, legacytest.Bare}, page) }, nil},
		{"a reserved page type", record.ErrValue, "PAGE_DATA",
			func(w *legacytest.Writer) { w.Batch([]uint64{legacytest.Entry(3, 6)}, page) }, nil},
		{"an empty HVM context", record.ErrMissing, "HVM_CONTEXT", func(w *legacytest.Writer) {}, []byte{}},
	} {
		img := legacytest.Image{Layout: legacy.Layout{Width: legacy.Width64, Domain: xcstream.DomainHVM}, Format: legacy.LibXC, NoQEMU: true}
		w := &legacytest.Writer{Width: legacy.Width64}
		w.Size(16)
		w.Batch([]uint64{legacytest.Entry(0, guest.NoTab)}, page)
		row.spoil(w)
		w.Chunk(legacy.ChunkEnd)
		w.MagicPFNs(1, 2, 3)
		if row.blob == nil {
			row.blob = legacytest.HVMContext(1, func([]byte) {})
		}
		w.Blob(row.blob)
		img.Data = w.B
		stream, _, err := convert(img, true)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		r := judge(t, img, stream)
		if r.Valid || !errors.Is(r.Error.Err(), row.what) || r.Error.Record != row.record {
			t.Errorf("%s: %+v, want %v in %s", row.name, r.Error, row.what, row.record)
		}
	}

	// A PV image without VCPU_INFO has no vCPU.
	w := &legacytest.Writer{Width: legacy.Width64}
	w.Size(16)
	w.ExtInfo(legacytest.Block{ID: "vcpu", Data: make([]byte, xcstream.VCPUContextSize64)})
	w.P2M([]uint64{0})
	w.Batch([]uint64{legacytest.Entry(0, guest.NoTab)}, page)
	w.Chunk(legacy.ChunkEnd)
	w.Unmapped(nil)
	w.Octets(make([]byte, guest.PageSize))
	img := legacytest.Image{Data: w.B, Format: legacy.LibXC}
	stream, _, err := convert(img, true)
	if err != nil {
		t.Fatal(err)
	}
	if r := judge(t, img, stream); r.Valid || !errors.Is(r.Error.Err(), record.ErrMissing) {
		t.Errorf("no vCPU: %+v", r.Error)
	}
}
