package verify

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"xenferry/lib/testkit"
	"xenferry/lib/xcstream"
)

var update = flag.Bool("update", false, "write the golden files anew")

// capture opens a stream of stock Xen.
func capture(t *testing.T, name string) io.Reader {
	t.Helper()
	file, err := os.Open(testkit.Capture(t, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	stream, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stream.Close)
	return stream
}

// goOctets is the length of xl's GO message, which follows a migration.
const goOctets = 44

// TestCaptures: what stock Xen writes is valid, even to a pedant, and the report is the one recorded. What the captures'
// README says of them is checked by itself.
func TestCaptures(t *testing.T) {
	readme := map[string]struct{ octets, pageData, hvmContext uint64 }{
		"xen-4.17.5-pv64-2vcpu-live.xlmigrate.zst":  {130526954 - goOctets, 33, 0},
		"xen-4.17.5-pvh-2vcpu-live.xlmigrate.zst":   {140019868 - goOctets, 1025, 4912},
		"xen-4.14.6-pvh-2vcpu-save.xlsave.zst":      {125885500, 1020, 4912},
		"xen-4.17.5-hvm-qemu-1vcpu-save.xlsave.zst": {176137172, 1020, 4112},
	}
	for _, name := range testkit.Captures {
		t.Run(name, func(t *testing.T) {
			src := capture(t, name)
			report, err := Verify(src, Options{AllowTrailing: true, Pedantic: true})
			if err != nil || !report.Valid || report.Warnings.Count != 0 {
				t.Fatalf("%v, %v, warnings %v", err, failure(report), report.Warnings.First)
			}
			want, known := readme[name]
			if !known {
				t.Fatal("the README's figures are missing here")
			}
			var pageData, hvmContext uint64
			for _, row := range report.LibXC.Records {
				if row.Type == uint32(xcstream.TypePageData) {
					pageData = row.Count
				}
			}
			if c := report.LibXC.HVMContext; c != nil {
				hvmContext = uint64(c.Octets)
			}
			if report.Octets != want.octets || pageData != want.pageData || hvmContext != want.hvmContext {
				t.Errorf("%d octets, %d PAGE_DATA, HVM_CONTEXT of %d octets; want %v", report.Octets, pageData, hvmContext, want)
			}
			rest, err := io.ReadAll(src)
			if migrated := strings.Contains(name, "xlmigrate"); err != nil || (len(rest) == goOctets) != migrated || !migrated && len(rest) != 0 {
				t.Errorf("%d octets behind END, %v", len(rest), err)
			}
			golden(t, strings.TrimSuffix(name, ".zst")+".txt", report)
		})
	}
}

// golden holds a report's text against the one in testdata.
func golden(t *testing.T, name string, report *Report) {
	t.Helper()
	var text bytes.Buffer
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, text.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text.Bytes(), want) {
		t.Errorf("the report is not that of %s:\n%s", file, text.Bytes())
	}
}

// TestCaptureTrailing: a migration with xl's GO behind it is valid, and with an octet behind that it is not.
func TestCaptureTrailing(t *testing.T) {
	const octets = 130526954
	for more, want := range map[string]error{"": nil, "?": ErrTrailing} {
		src := io.MultiReader(capture(t, "xen-4.17.5-pv64-2vcpu-live.xlmigrate.zst"), strings.NewReader(more))
		report, err := Verify(src, Options{Pedantic: true})
		if err != nil || !errors.Is(failure(report), want) || report.Octets != octets+uint64(len(more)) || want != nil && report.Error.Offset != octets {
			t.Errorf("%q: %v, %v, %d octets", more, err, failure(report), report.Octets)
		}
		if !slices.Equal(report.Handover, handover[:1]) {
			t.Errorf("%q: hand-over %q", more, report.Handover)
		}
	}
}

// TestCaptureCompare: the PV capture equals itself, with all that its P2M and tree must be understood for, and does not equal
// another guest.
func TestCaptureCompare(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 260 MB")
	}
	read := func(name string) io.ReaderAt {
		b, err := io.ReadAll(capture(t, name))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.NewReader(b)
	}
	pv := read("xen-4.17.5-pv64-2vcpu-live.xlmigrate.zst")
	c, err := Compare(pv, pv, Options{AllowTrailing: true})
	if err != nil || !c.Equal || c.Pages != 28672 {
		t.Fatalf("%v, %+v", err, c)
	}
	img, _, err := loadImage("A", pv, Options{AllowTrailing: true})
	if err != nil {
		t.Fatal(err)
	}
	p2m, err := newP2M(img)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := p2m.tree()
	if err != nil || len(p2m.lost) != 0 || len(p2m.mfns) != 28672 || len(tree) != 3 {
		t.Errorf("%v: %d entries lost, %d MFNs, tree %v", err, len(p2m.lost), len(p2m.mfns), tree)
	}
	frame, _ := splitCR3(8, word(img.shared[p2mCR3(8):], 8))
	if _, ok := p2m.pfn(frame); !ok {
		t.Error("p2m_cr3 does not lead into the guest")
	}
}
