package legacy_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"xenferry/lib/legacy"
	"xenferry/lib/legacy/legacytest"
	"xenferry/lib/testkit"
	"xenferry/lib/xcstream"
)

// referenceDriver runs one of Xen's scripts many times in one Python: a line of standard input is its arguments, separated
// by tabs; a line of output is the exit status.
const referenceDriver = `
import importlib.machinery, importlib.util, os, sys
script = sys.argv[1]
loader = importlib.machinery.SourceFileLoader("reference", script)
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("reference", loader))
loader.exec_module(module)
first = dict(module.__dict__)
out = os.dup(1)
for line in sys.stdin:
    module.__dict__.update(first)
    sys.stdout = None  # what the script put there goes, and closes descriptor 1
    os.dup2(out, 1)
    sys.stdout = open(1, "w", closefd=False)
    sys.argv = [script] + line.rstrip("\n").split("\t")
    try:
        status = module.main() or 0
    except SystemExit as e:
        status = e.code or 0
    except BaseException:
        status = 1
    for f in ("fin", "fout"):
        try:
            getattr(module, f).close()
        except Exception:
            pass
    os.write(out, b"%d\n" % status)
`

// reference is one of Xen's scripts.
type reference struct {
	t      *testing.T
	in     io.Writer
	out    *bufio.Reader
	folder string
}

func newReference(t *testing.T, name string) *reference {
	script, modules := testkit.ReferenceScript(t, name)
	cmd := exec.Command("python3", "-c", referenceDriver, script)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+modules, "PYTHONDONTWRITEBYTECODE=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &reference{t, in, bufio.NewReader(out), t.TempDir()}
}

// run runs the script and returns its exit status.
func (r *reference) run(args ...string) int {
	r.t.Helper()
	if _, err := io.WriteString(r.in, strings.Join(args, "\t")+"\n"); err != nil {
		r.t.Fatal(err)
	}
	line, err := r.out.ReadString('\n')
	if err != nil {
		r.t.Fatalf("Xen's script died: %v", err)
	}
	status, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		r.t.Fatal(err)
	}
	return status
}

// convert has the script convert an image.
func (r *reference) convert(img legacytest.Image) (stream []byte, status int) {
	r.t.Helper()
	in, out := filepath.Join(r.folder, "in"), filepath.Join(r.folder, "out")
	if err := os.WriteFile(in, img.Data, 0o600); err != nil {
		r.t.Fatal(err)
	}
	args := []string{"--in", in, "--out", out, "--width", img.Layout.Width.String(), "--guest", img.Layout.Guest(), "--format", formats[img.Format]}
	if img.NoQEMU {
		args = append(args, "--skip-qemu")
	}
	status = r.run(args...)
	stream, err := os.ReadFile(out)
	if err != nil {
		r.t.Fatal(err)
	}
	return stream, status
}

var formats = map[legacy.Format]string{legacy.LibXC: "libxc", legacy.LibXL: "libxl"}

// convert converts an image as the command does, given its layout or left to find it out.
func convert(img legacytest.Image, detect bool) (stream []byte, status int, err error) {
	opts := legacy.Options{Layout: img.Layout, XL: img.XL, SkipQEMU: img.NoQEMU && img.Format == legacy.LibXC}
	if detect {
		opts.Layout = legacy.Layout{}
	}
	var out bytes.Buffer
	r := legacy.NewReader(bytes.NewReader(img.Data), opts)
	_, err = legacy.Convert(&out, r, legacy.Conversion{Format: img.Format, Version: xcstream.Version3, Spool: newSpool})
	switch {
	case errors.Is(err, legacy.ErrUnsupported):
		status = 2
	case err != nil:
		status = 1
	}
	return out.Bytes(), status, err
}

// full reports whether the numbers of the issues are asked for.
func full() bool { return os.Getenv("XENFERRY_FULL") != "" }

// TestReference: what Xen's script converts we convert to the same octets, and what it refuses we refuse with the same exit
// status. The layout is given to both; where it is left to us to find out, that makes no difference.
func TestReference(t *testing.T) {
	ref := newReference(t, "convert-legacy-stream")
	count := uint64(150)
	switch {
	case full():
		count = 1000
	case testing.Short():
		count = 20
	}
	makers := []func(uint64) legacytest.Image{legacytest.Genuine, legacytest.Odd, legacytest.Broken, legacytest.Broken}
	failed, converted := 0, 0
	for seed := range count {
		for _, make := range makers[:2+2*min(1, int(seed)%2)] {
			img := make(seed)
			want, status := ref.convert(img)
			got, ours, err := convert(img, false)
			switch {
			case ours != status:
				t.Errorf("%s, %v, %s: exit status %d (%v), Xen's script has %d", img.What, img.Layout, formats[img.Format], ours, err, status)
			case status == 0 && !bytes.Equal(got, want):
				t.Errorf("%s, %v, %s: %d octets differ from the %d of Xen's script at %#x", img.What, img.Layout, formats[img.Format], len(got), len(want), differAt(got, want))
			case status == 0:
				converted++
				testDetected(t, img, want)
			default:
				failed++
			}
			if t.Failed() {
				saveImage(t, img)
				return
			}
		}
	}
	t.Logf("%d images converted alike, %d refused alike", converted, failed)
}

// testDetected converts without saying what the image is, and with an xl header in front.
func testDetected(t *testing.T, img legacytest.Image, want []byte) {
	t.Helper()
	if got, _, err := convert(img, true); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s, %v, left to find out: %v", img.What, img.Layout, err)
	}
	const flags = 1
	var head, converted legacytest.Writer
	config := legacytest.XLConfig(`{"c_info":{"name":"g"}}`)
	head.XLHeader(flags, config)
	converted.XLHeader(flags|2*uint32(img.Format-legacy.LibXC), config)
	img.Data, img.XL = append(head.B, img.Data...), true
	if got, _, err := convert(img, true); err != nil || !bytes.Equal(got, append(converted.B, want...)) {
		t.Errorf("%s, %v, with an xl header: %v", img.What, img.Layout, err)
	}
}

func differAt(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// saveImage keeps an image for whoever looks into a failure.
func saveImage(t *testing.T, img legacytest.Image) {
	name := filepath.Join(os.TempDir(), "convert-legacy-failed")
	if err := os.WriteFile(name, img.Data, 0o600); err == nil {
		t.Logf("the image is %s", name)
	}
}
