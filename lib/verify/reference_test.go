package verify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"xenferry/lib/record"
	"xenferry/lib/testkit"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// referenceDriver runs Xen's script over many streams in one Python: a line of standard input is a format and a file, a line
// of output the exit status.
const referenceDriver = `
import os, runpy, sys
script = sys.argv[1]
out = os.dup(1)
for line in sys.stdin:
    sys.stdout = None  # what the script put there goes, and closes descriptor 1
    os.dup2(out, 1)
    sys.stdout = open(1, "w", closefd=False)
    form, path = line.rstrip("\n").split(" ", 1)
    sys.argv = [script, "-q", "-f", form, "-i", path]
    try:
        runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as e:
        status = e.code or 0
    except BaseException:
        status = 1
    os.write(out, b"%d\n" % status)
`

// sample is a stream for both verifiers.
type sample struct {
	name  string
	layer Layer
	data  []byte
}

// referenceVerdicts is what Xen's verify-stream-v2 says of the samples.
func referenceVerdicts(t *testing.T, samples []sample) []bool {
	t.Helper()
	script, pythonPath := testkit.ReferenceScript(t, "verify-stream-v2")
	dir := t.TempDir()
	var input strings.Builder
	for i, s := range samples {
		file := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(file, s.data, 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&input, "%s %s\n", s.layer, file)
	}
	cmd := exec.Command("python3", "-c", referenceDriver, script)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+pythonPath)
	cmd.Stdin = strings.NewReader(input.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run %s: %v", script, err)
	}
	var verdicts []bool
	for _, line := range strings.Fields(string(out)) {
		verdicts = append(verdicts, line == "0")
	}
	if len(verdicts) != len(samples) {
		t.Fatalf("%s gave %d verdicts on %d streams", script, len(verdicts), len(samples))
	}
	return verdicts
}

// shortened is a libxc stream of stock Xen with only its shortest PAGE_DATA.
func shortened(t *testing.T, name string) []byte {
	t.Helper()
	all, err := io.ReadAll(capture(t, name))
	if err != nil {
		t.Fatal(err)
	}
	start := bytes.Index(all, xcstream.ImageHeader{Version: xcstream.Version3}.Append(nil))
	report := verified(t, all[start:], Options{Layer: LibXC, AllowTrailing: true})
	var chunks []chunk
	var page *chunk
	for _, c := range split(t, all[start:][:report.Octets]) {
		switch {
		case c.typ != xcstream.TypePageData:
			chunks = append(chunks, c)
		case page == nil:
			chunks = append(chunks, c)
			page = &chunks[len(chunks)-1]
		case len(c.octets) < len(page.octets):
			chunks[index(chunks, xcstream.TypePageData)] = c
			page = &chunks[index(chunks, xcstream.TypePageData)]
		}
	}
	return join(chunks)
}

// mutants changes an octet near the begin of a record, or takes, repeats or moves a record.
func mutants(t *testing.T, name string, stream []byte, count int) (samples []sample) {
	r := rand.New(rand.NewPCG(1, uint64(len(stream))))
	for i := range count {
		chunks := split(t, stream)
		k := r.IntN(len(chunks))
		c := &chunks[k]
		what := ""
		switch op := r.IntN(10); {
		case op < 7:
			at := r.IntN(min(len(c.octets), 40))
			c.octets = bytes.Clone(c.octets)
			c.octets[at] ^= 1 << r.IntN(8)
			what = fmt.Sprintf("octet %d of %v", at, c.typ)
		case op == 7:
			what = fmt.Sprintf("no %v", c.typ)
			chunks = append(chunks[:k:k], chunks[k+1:]...)
		case op == 8:
			what = fmt.Sprintf("%v twice", c.typ)
			chunks = append(chunks[:k:k], append([]chunk{*c}, chunks[k:]...)...)
		default:
			j := r.IntN(len(chunks))
			what = fmt.Sprintf("%v and %v change places", c.typ, chunks[j].typ)
			chunks[k], chunks[j] = chunks[j], chunks[k]
		}
		samples = append(samples, sample{fmt.Sprintf("%s %d: %s", name, i, what), LibXC, join(chunks)})
	}
	return samples
}

// deliberate is a class of streams that the two verifiers judge differently, and ours as it should.
type deliberate struct {
	name string
	ours bool // valid to us
	is   func(r *Report) bool
}

var deliberates = []deliberate{
	{"the script reads numbers as its own host writes them", true, func(r *Report) bool {
		return r.LibXL != nil && r.LibXL.Endian == "big"
	}},
	{"what stock restore tolerates is a warning", true, func(r *Report) bool { return r.Warnings.Count > 0 }},
	{"optional records may come", true, func(r *Report) bool {
		return slices.ContainsFunc(r.LibXC.Records, func(row Records) bool { return xcstream.Type(row.Type).Optional() })
	}},
	{"the script mistakes octets for text in xenstore data", true, func(r *Report) bool {
		return r.LibXL != nil && slices.ContainsFunc(r.LibXL.Records, func(row Records) bool {
			return row.Type == uint32(xlstream.TypeEmulatorXenstore)
		})
	}},
	{"the script looks at no order", false, func(r *Report) bool { return errors.Is(failure(r), record.ErrOrder) }},
	{"the script does not see what is missing", false, func(r *Report) bool { return errors.Is(failure(r), record.ErrMissing) }},
	{"the script does not look into HVM_CONTEXT", false, func(r *Report) bool {
		return r.Error.Record == xcstream.TypeHVMContext.String()
	}},
	{"the script does not know which PFNs the P2M has", false, func(r *Report) bool {
		switch r.Error.Record {
		case xcstream.TypeX86PVP2MFrames.String():
			return errors.Is(failure(r), record.ErrLength)
		case xcstream.TypePageData.String(), xcstream.TypeEnd.String():
			return errors.Is(failure(r), record.ErrValue)
		}
		return false
	}},
	{"the script takes what says that it is big-endian", false, func(r *Report) bool {
		return strings.Contains(r.Error.Reason, "big-endian")
	}},
	{"the script takes any vCPU number and context", false, func(r *Report) bool {
		return strings.HasPrefix(r.Error.Record, "X86_PV_VCPU")
	}},
}

// TestReference: Xen's own verifier and ours judge alike, but for the differences that are meant to be.
func TestReference(t *testing.T) {
	samples := referenceSamples(t)
	seen := map[string]int{}
	for i, theirs := range referenceVerdicts(t, samples) {
		s := samples[i]
		r := verified(t, s.data, Options{Layer: s.layer, AllowTrailing: true})
		if r.Valid == theirs {
			continue
		}
		class := slices.IndexFunc(deliberates, func(d deliberate) bool { return d.ours == r.Valid && d.is(r) })
		if class < 0 {
			t.Errorf("%s: valid to us %v, to Xen's verifier %v: %v", s.name, r.Valid, theirs, failure(r))
			continue
		}
		seen[deliberates[class].name]++
	}
	for _, d := range deliberates {
		if n := seen[d.name]; n > 0 {
			t.Logf("%3d of %d streams: %s", n, len(samples), d.name)
		} else if !testing.Short() {
			t.Errorf("no stream shows that %s", d.name)
		}
	}
}

// referenceSamples are the vectors of all layers, our own images, and stock Xen's streams with changes.
func referenceSamples(t *testing.T) (samples []sample) {
	for _, layer := range []Layer{LibXC, LibXL, XL} {
		vectors, err := testkit.Vectors(layer.String())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vectors {
			samples = append(samples, sample{v.Name, layer, v.Data})
		}
	}
	for _, row := range verdictRows() {
		samples = append(samples, sample{row.kind + ", " + row.name, LibXC, row.stream(t)})
	}
	if testing.Short() {
		return samples
	}
	for _, name := range testkit.Captures {
		if strings.Contains(name, "4.17") {
			stream := shortened(t, name)
			samples = append(append(samples, sample{name, LibXC, stream}), mutants(t, name, stream, 120)...)
		}
	}
	return samples
}
