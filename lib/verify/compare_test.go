package verify

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// compareStreams compares two streams that must be valid.
func compareStreams(t *testing.T, a, b []byte) *Comparison {
	t.Helper()
	c, err := Compare(bytes.NewReader(a), bytes.NewReader(b), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Invalid(); err != nil {
		t.Fatal(err)
	}
	if c.Equal != (c.Count == 0) {
		t.Errorf("equal %v with %d differences", c.Equal, c.Count)
	}
	return c
}

// kinds are the test guests, as the second of two hosts saves them.
var kinds = []struct {
	name  string
	image func(host int) *testImage
}{
	{"pv64", func(host int) *testImage { return newPV(8, host) }},
	{"pv32", func(host int) *testImage { return newPV(4, host) }},
	{"hvm", func(int) *testImage { return newHVM() }},
}

func TestCompareEqual(t *testing.T) {
	rows := []struct {
		name   string
		change func(img *testImage)
	}{
		{"another host", func(*testImage) {}},
		{"other batches", func(img *testImage) { img.batch = 1 }},
		{"XTAB for no page", func(img *testImage) { img.pages[testAbsent] = testPage{typ: guest.XTab} }},
		{"optional record", func(img *testImage) { img.optional = []byte("whatever") }},
		{"other release", func(img *testImage) { img.domain.Xen.Minor++ }},
		{"records of vCPUs in another order", func(img *testImage) { slices.Reverse(img.vcpus) }},
		{"parameters in another order", func(img *testImage) { slices.Reverse(img.params) }},
		{"a parameter twice", func(img *testImage) {
			img.params = append(xcstream.HVMParams{{Index: xcstream.HVMParamIdentPT, Value: 1}}, img.params...)
		}},
		{"a parameter of zero", func(img *testImage) {
			img.params = append(img.params, xcstream.HVMParam{Index: xcstream.HVMParamViridian})
		}},
	}
	for _, kind := range kinds {
		for _, row := range rows {
			t.Run(kind.name+"/"+row.name, func(t *testing.T) {
				b := kind.image(2)
				row.change(b)
				if c := compareStreams(t, kind.image(1).stream(t), b.stream(t)); !c.Equal {
					t.Errorf("differences: %+v", c.First)
				}
			})
		}
	}
}

// octetRange is octets from first to last, both included.
type octetRange struct{ first, last int }

func within(ranges []octetRange, i int) bool {
	return slices.ContainsFunc(ranges, func(r octetRange) bool { return r.first <= i && i <= r.last })
}

// pendingSelRanges is evtchn_pending_sel in each vcpu_info.
func pendingSelRanges(width int) (ranges []octetRange) {
	for i := range 32 {
		ranges = append(ranges, octetRange{i*64 + width, i*64 + 2*width - 1})
	}
	return ranges
}

// structures are what restore changes parts of: where their octets are in an image, and which of them may differ. The
// list is the issue's, written down a second time from the headers.
var structures = []struct {
	name   string
	image  func(host int) *testImage
	octets func(img *testImage) []byte
	exempt []octetRange
}{
	{"pv64 start_info", kinds[0].image, pageOctets(testStartInfo),
		[]octetRange{{32, 39}, {40, 47}, {48, 51}, {64, 67}, {80, 83}}},
	{"pv32 start_info", kinds[1].image, pageOctets(testStartInfo),
		[]octetRange{{32, 35}, {36, 39}, {40, 43}, {48, 51}, {56, 59}}},
	{"pv64 SHARED_INFO", treeless(8, 3096), sharedOctets,
		append(pendingSelRanges(8), octetRange{2048, 2559}, octetRange{2560, 3071}, octetRange{3072, 3087}, octetRange{3096, 3103})},
	{"pv32 SHARED_INFO", treeless(4, 2320), sharedOctets,
		append(pendingSelRanges(4), octetRange{2048, 2175}, octetRange{2176, 2303}, octetRange{2304, 2315}, octetRange{2320, 2323}, octetRange{2340, 2343})},
	{"pv64 TSC", kinds[0].image, tscOctets, []octetRange{{8, 19}}},
	{"hvm TSC", kinds[2].image, tscOctets, []octetRange{{8, 19}}},
	{"hvm CPU", kinds[2].image, func(img *testImage) []byte { return img.context[1].Data }, []octetRange{{1008, 1015}}},
	{"hvm PIC", kinds[2].image, func(img *testImage) []byte { return img.context[2].Data }, nil},
	{"hvm LAPIC", kinds[2].image, func(img *testImage) []byte { return img.context[4].Data }, nil},
	{"hvm store", kinds[2].image, pageOctets(20), []octetRange{{0, 4095}}},
	{"hvm ioreq", kinds[2].image, pageOctets(24), []octetRange{{0, 4095}}},
	{"hvm bufioreq", kinds[2].image, pageOctets(28), []octetRange{{0, 4095}}},
	{"hvm console", kinds[2].image, pageOctets(32), []octetRange{{0, 4095}}},
	{"hvm page before store", kinds[2].image, pageOctets(19), nil},
	{"hvm page behind store", kinds[2].image, pageOctets(21), nil},
	{"hvm page before ioreq", kinds[2].image, pageOctets(23), nil},
	{"hvm page behind ioreq", kinds[2].image, pageOctets(25), nil},
	{"hvm page before bufioreq", kinds[2].image, pageOctets(27), nil},
	{"hvm page behind bufioreq", kinds[2].image, pageOctets(29), nil},
	{"hvm page before console", kinds[2].image, pageOctets(31), nil},
	{"hvm page behind console", kinds[2].image, pageOctets(33), nil},
	{"hvm ioreq server", kinds[2].image, pageOctets(34), nil},
	{"pv64 vCPU 1 extended", kinds[0].image, func(img *testImage) []byte { return img.vcpus[5].Context[4:] }, nil},
	{"pv32 vCPU 1 XSAVE", kinds[1].image, func(img *testImage) []byte { return img.vcpus[6].Context }, nil},
	{"pv64 vCPU 0 MSRS", kinds[0].image, func(img *testImage) []byte { return img.vcpus[3].Context[8:] }, nil},
}

// treeless is a PV guest that names no P2M tree; list is where it would, in shared_info.
func treeless(width, list int) func(int) *testImage {
	return func(host int) *testImage {
		img := newPV(width, host)
		img.pages[testTop], img.pages[testMid] = testPage{data: pattern(1, guest.PageSize)}, testPage{data: pattern(2, guest.PageSize)}
		clear(img.shared[list:][:width])
		return img
	}
}

func pageOctets(p guest.PFN) func(*testImage) []byte {
	return func(img *testImage) []byte { return img.pages[p].data }
}
func sharedOctets(img *testImage) []byte { return img.shared }
func tscOctets(img *testImage) []byte    { return img.tsc }

// TestExemptions changes octets one by one: those beside an exemption, its first and last, and others in steps.
func TestExemptions(t *testing.T) {
	for _, s := range structures {
		t.Run(s.name, func(t *testing.T) {
			a := s.image(1).stream(t)
			b := s.image(2)
			octets := s.octets(b)
			for i := range octets {
				want := within(s.exempt, i)
				border := i > 0 && within(s.exempt, i-1) != want || within(s.exempt, i+1) != want
				if !border && i%(1+len(octets)/24) != 0 {
					continue
				}
				octets[i] ^= 0x41
				if c := compareStreams(t, a, b.stream(t)); c.Equal != want {
					t.Errorf("octet %d changed: equal %v, want %v: %+v", i, c.Equal, want, c.First)
				}
				octets[i] ^= 0x41
			}
		})
	}
}

// TestExemptOnline: of a vCPU's context, one bit of the flags may differ.
func TestExemptOnline(t *testing.T) {
	for _, kind := range kinds[:2] {
		t.Run(kind.name, func(t *testing.T) {
			a := kind.image(1).stream(t)
			b := kind.image(2)
			for _, record := range []int{0, 4} {
				context := b.vcpus[record].Context
				for octet := 500; octet < 524; octet++ {
					for bit := range 8 {
						context[octet] ^= 1 << bit
						if c, want := compareStreams(t, a, b.stream(t)), octet == 512 && bit == 5; c.Equal != want {
							t.Errorf("record %d, octet %d, bit %d changed: equal %v, want %v", record, octet, bit, c.Equal, want)
						}
						context[octet] ^= 1 << bit
					}
				}
			}
		})
	}
}

// TestCompareDiffers: what restoring must not change.
func TestCompareDiffers(t *testing.T) {
	type row struct {
		name   string
		change func(img *testImage)
	}
	all := []row{
		{"page contents", func(img *testImage) { img.anyPage().data[4095] ^= 1 }},
		{"page gone", func(img *testImage) { delete(img.pages, img.lastPFN()) }},
		{"page to XTAB", func(img *testImage) { img.pages[img.lastPFN()] = testPage{typ: guest.XTab} }},
		{"page to XALLOC", func(img *testImage) { img.pages[img.lastPFN()] = testPage{typ: guest.XAlloc} }},
		{"page to BROKEN", func(img *testImage) { img.pages[img.lastPFN()] = testPage{typ: guest.Broken} }},
		{"CPUID leaf", func(img *testImage) { img.cpuid[0].D ^= 1 }},
		{"CPUID leaf gone", func(img *testImage) { img.cpuid = append(img.cpuid, img.cpuid[0]) }},
		{"policy MSR", func(img *testImage) { img.msrs[0].Value++ }},
		{"TSC mode", func(img *testImage) { img.tsc[0] ^= 1 }},
		{"TSC frequency", func(img *testImage) { img.tsc[4] ^= 1 }},
	}
	pv := []row{
		{"page table's type", func(img *testImage) {
			img.pages[testRoot] = testPage{img.pages[testRoot].typ &^ guest.Pinned, img.pages[testRoot].data}
		}},
		{"P2M frames", func(img *testImage) { img.p2m.Frames[0] = testMissing }},
		{"P2M's end", func(img *testImage) { img.p2m.End++ }},
		{"P2M entry invalid", func(img *testImage) { putWord(img.pages[testP2M].data, int(img.info.Width), 10, ^uint64(0)) }},
		{"P2M entry of another", func(img *testImage) {
			putWord(img.pages[testP2M].data, int(img.info.Width), 10, testMFN(2, 11))
		}},
		{"behind the P2M's end", func(img *testImage) { img.pages[testP2M].data[int(testMaxPFN+1)*int(img.info.Width)] ^= 1 }},
		{"end of the last P2M page", func(img *testImage) { img.pages[testP2M].data[4095] ^= 1 }},
		{"tree's top", func(img *testImage) { putWord(img.pages[testTop].data, int(img.info.Width), 0, testMFN(2, 9)) }},
		{"tree's leaf", func(img *testImage) { putWord(img.pages[testMid].data, int(img.info.Width), 0, testMFN(2, 9)) }},
		{"tree's unused word", func(img *testImage) { putWord(img.pages[testMid].data, int(img.info.Width), 9, testMFN(2, 9)) }},
		{"p2m_cr3", func(img *testImage) { img.shared[p2mCR3(img.info.Width)+1] ^= 0x10 }},
		{"p2m_cr3's low bits", func(img *testImage) { img.shared[p2mCR3(img.info.Width)] ^= 1 }},
		{"vCPU's state gone", func(img *testImage) { img.vcpus = img.vcpus[:len(img.vcpus)-1] }},
		{"start_info of another vCPU 0", func(img *testImage) {
			binary.LittleEndian.PutUint32(img.vcpus[0].Context[map[uint8]int{4: 524, 8: 616}[img.info.Width]:], 9)
		}},
	}
	hvm := []row{
		{"parameter", func(img *testImage) { img.params[4].Value++ }},
		{"parameter gone", func(img *testImage) { img.params = img.params[:4] }},
		{"store elsewhere", func(img *testImage) { img.params[0].Value++ }},
		{"context entry gone", func(img *testImage) { img.context = slices.Delete(img.context, 2, 3) }},
		{"context header", func(img *testImage) { img.context[0].Data[23] ^= 1 }},
		{"longer than the saver's entry", func(img *testImage) { img.context[4].Data = append(img.context[4].Data, make([]byte, 8)...) }},
	}
	for _, kind := range kinds {
		rows := append(slices.Clone(all), pv...)
		if kind.name == "hvm" {
			rows = append(slices.Clone(all), hvm...)
		}
		for _, row := range rows {
			t.Run(kind.name+"/"+row.name, func(t *testing.T) {
				b := kind.image(2)
				row.change(b)
				if c := compareStreams(t, kind.image(1).stream(t), b.stream(t)); c.Equal || len(c.First) == 0 {
					t.Error("no difference found")
				}
			})
		}
	}
	if c := compareStreams(t, newPV(8, 1).stream(t), newPV(4, 1).stream(t)); c.Equal {
		t.Error("PV64 equals PV32")
	}
	if c := compareStreams(t, newPV(8, 1).stream(t), newHVM().stream(t)); c.Equal {
		t.Error("PV equals HVM")
	}
}

// lastPFN is that of an ordinary page.
func (img *testImage) lastPFN() guest.PFN {
	if img.domain.Type == xcstream.DomainHVM {
		return 36
	}
	return testMaxPFN
}

func (img *testImage) anyPage() testPage { return img.pages[img.lastPFN()] }

// TestCompareNewerRelease: a newer Xen takes a short LAPIC entry for one with zeros behind, and writes the long one.
func TestCompareNewerRelease(t *testing.T) {
	newer := newHVM()
	newer.domain.Xen.Minor = 20
	newer.context[4].Data = append(newer.context[4].Data, make([]byte, 8)...)
	if c := compareStreams(t, newHVM().stream(t), newer.stream(t)); !c.Equal {
		t.Errorf("zeros behind: %+v", c.First)
	}
	newer.context[4].Data[31] = 1
	if c := compareStreams(t, newHVM().stream(t), newer.stream(t)); c.Equal {
		t.Error("an octet behind the old entry's end: equal")
	}
}

// TestCompareTreeGone: where only one guest names its tree, as one that did not run since it was restored, the tree's pages
// are compared as they are.
func TestCompareTreeGone(t *testing.T) {
	for width, list := range map[int]int{4: 2320, 8: 3096} {
		a, b := newPV(width, 1), newPV(width, 2)
		b.pages[testTop], b.pages[testMid] = a.pages[testTop], a.pages[testMid]
		clear(b.shared[list:][:width])
		if c := compareStreams(t, a.stream(t), b.stream(t)); !c.Equal {
			t.Errorf("width %d: %+v", width, c.First)
		}
	}
}

// TestCompareLastState: a page counts as it was sent last, whatever came before.
func TestCompareLastState(t *testing.T) {
	once, more := newHVM().stream(t), newHVM()
	var b bytes.Buffer
	w := xcstream.NewWriter(&b)
	stale := bytes.Repeat([]byte{0x5a}, guest.PageSize)
	for _, p := range []guest.PFN{16, 30, 17, 1000} {
		if err := w.PageData([]pageEntry{xcstream.NewPageEntry(p, guest.NoTab)}, [][]byte{stale}); err != nil {
			t.Fatal(err)
		}
	}
	more.pages[1000] = testPage{typ: guest.XTab}
	full := more.stream(t)
	at := bytes.Index(full, []byte{byte(xcstream.TypeStaticDataEnd), 0, 0, 0, 0, 0, 0, 0}) + 8
	if c := compareStreams(t, once, slices.Insert(full, at, b.Bytes()...)); !c.Equal {
		t.Errorf("differences: %+v", c.First)
	}
}

// TestCompareMany: differences are counted, and the first of them kept.
func TestCompareMany(t *testing.T) {
	a, b := newHVM(), newHVM()
	for p := guest.PFN(100); p < 400; p++ {
		a.pages[p] = testPage{guest.NoTab, pattern(1, guest.PageSize)}
		b.pages[p] = testPage{guest.NoTab, pattern(2, guest.PageSize)}
	}
	c := compareStreams(t, a.stream(t), b.stream(t))
	if c.Count != 300 || len(c.First) != maxDifferences || c.First[0].What != "page of PFN 0x64" {
		t.Errorf("%d differences, %d kept, first %+v", c.Count, len(c.First), c.First[0])
	}
	var text bytes.Buffer
	if err := c.WriteText(&text); err != nil || !bytes.Contains(text.Bytes(), []byte("and 200 more")) {
		t.Errorf("text: %v\n%s", err, text.Bytes())
	}
}

func TestCompareInvalid(t *testing.T) {
	good := newHVM().stream(t)
	c, err := Compare(bytes.NewReader(good), bytes.NewReader(good[:len(good)-8]), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Equal || c.Invalid() == nil || fmt.Sprint(c.Invalid())[:7] != "image B" {
		t.Errorf("truncated image: %v", c.Invalid())
	}
}
