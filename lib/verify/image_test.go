package verify

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// testPage is a page of a testImage.
type testPage struct {
	typ  guest.PageType
	data []byte
}

// testImage is a domain that a test changes and writes as a stream.
type testImage struct {
	domain   xcstream.DomainHeader
	version  uint32
	info     xcstream.PVInfo
	cpuid    xcstream.CPUIDPolicy
	msrs     xcstream.MSRPolicy
	tsc      []byte
	p2m      xcstream.P2MFrames
	pages    map[guest.PFN]testPage
	batch    int
	shared   []byte
	vcpus    []vcpuRecord
	params   xcstream.HVMParams
	context  []xcstream.HVMEntry
	optional []byte
}

// Frames of the test guests. PFN 12 has no page.
const (
	testP2M       guest.PFN = 3
	testTop       guest.PFN = 4
	testMid       guest.PFN = 5
	testStartInfo guest.PFN = 6
	testRoot      guest.PFN = 7
	testMissing   guest.PFN = 8 // the P2M page that a tree's unused words name
	testAbsent    guest.PFN = 12
	testMaxPFN    guest.PFN = 15
)

// testMFN is the frame that a PFN has on one of several hosts.
func testMFN(host int, p guest.PFN) uint64 {
	return uint64(host)*0x1000 + 0x100 + uint64(p)*uint64(3+2*host)%17
}

// pattern is n octets that depend on seed, none of them zero.
func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 1 + (seed*31+byte(i)*7+byte(i>>8))%255
	}
	return b
}

func basePages(from, to guest.PFN) map[guest.PFN]testPage {
	pages := map[guest.PFN]testPage{}
	for p := from; p <= to; p++ {
		pages[p] = testPage{guest.NoTab, pattern(byte(p), guest.PageSize)}
	}
	return pages
}

func putWord(b []byte, width int, i int, v uint64) {
	if width == 4 {
		binary.LittleEndian.PutUint32(b[i*4:], uint32(v))
		return
	}
	binary.LittleEndian.PutUint64(b[i*8:], v)
}

// newPV is a PV guest as a host saves it: a P2M of one page, a tree that leads to it, and its p2m_cr3.
func newPV(width int, host int) *testImage {
	img := &testImage{
		domain:  xcstream.DomainHeader{Type: xcstream.DomainPV, Xen: guest.Release{Major: 4, Minor: 17}},
		version: xcstream.Version3,
		info:    xcstream.PVInfo{Width: uint8(width), Levels: uint8(2 + width/4)},
		cpuid:   xcstream.CPUIDPolicy{{Leaf: 0, Subleaf: ^uint32(0), A: 13}, {Leaf: 1, Subleaf: ^uint32(0), D: 77}},
		msrs:    xcstream.MSRPolicy{{Index: 0xce, Value: 1 << 31}},
		tsc:     pattern(1, 20),
		p2m:     xcstream.P2MFrames{Start: 0, End: uint32(testMaxPFN), Frames: []guest.PFN{testP2M}},
		pages:   basePages(0, testMaxPFN),
		batch:   5,
		shared:  pattern(9, guest.PageSize),
	}
	delete(img.pages, testAbsent)
	img.pages[testRoot] = testPage{guest.PageType(img.info.Levels) | guest.Pinned, img.pages[testRoot].data}
	p2m, top, mid := img.pages[testP2M].data, img.pages[testTop].data, img.pages[testMid].data
	for p := range testMaxPFN + 1 {
		putWord(p2m, width, int(p), testMFN(host, p))
	}
	putWord(p2m, width, int(testAbsent), 1<<62+0xabc<<uint(host)) // what the guest keeps there
	for i := range guest.PageSize / width {
		putWord(top, width, i, testMFN(host, testMid))
		putWord(mid, width, i, testMFN(host, testMissing))
	}
	putWord(mid, width, 0, testMFN(host, testP2M))
	arch, list, cr3 := 3088, 3096, testMFN(host, testRoot)<<12
	if width == 4 {
		arch, list, cr3 = 2316, 2320, testMFN(host, testRoot)<<12|testMFN(host, testRoot)>>20
	}
	putWord(img.shared[arch:], width, 0, uint64(testMaxPFN)+1)
	putWord(img.shared[list:], width, 0, testMFN(host, testTop))
	putWord(img.shared[p2mCR3(uint8(width)):], width, 0, cr3)
	for id := range uint32(2) {
		img.vcpus = append(img.vcpus, testVCPU(width, id)...)
	}
	return img
}

// testVCPU is the records of a PV vCPU.
func testVCPU(width int, id uint32) []vcpuRecord {
	size, edx := xcstream.VCPUContextSize64, 616
	if width == 4 {
		size, edx = xcstream.VCPUContextSize32, 524
	}
	basic, extended := pattern(byte(id), size), pattern(byte(id+1), 64)
	putWord(basic[edx:], width, 0, uint64(testStartInfo))
	binary.LittleEndian.PutUint32(extended, id)
	return []vcpuRecord{
		{xcstream.VCPU{ID: id, Context: basic}, xcstream.TypeX86PVVCPUBasic},
		{xcstream.VCPU{ID: id, Context: extended}, xcstream.TypeX86PVVCPUExtended},
		{xcstream.VCPU{ID: id, Context: pattern(byte(id+2), 16)}, xcstream.TypeX86PVVCPUXSave},
		{xcstream.VCPU{ID: id, Context: xcstream.AppendMSRs(nil, []guest.MSR{{Index: 0x48, Value: 5}})}, xcstream.TypeX86PVVCPUMSRs},
	}
}

// newHVM is an HVM guest whose special pages are PFNs 20, 24, 28 and 32.
func newHVM() *testImage {
	header := xcstream.HVMHeaderData{Changeset: ^uint64(0), CPUID: 0x663, TSCKHz: 2400000}
	return &testImage{
		domain:  xcstream.DomainHeader{Type: xcstream.DomainHVM, Xen: guest.Release{Major: 4, Minor: 17}},
		version: xcstream.Version3,
		cpuid:   xcstream.CPUIDPolicy{{Leaf: 0, Subleaf: ^uint32(0), A: 13}},
		msrs:    xcstream.MSRPolicy{{Index: 0xce, Value: 1 << 31}},
		tsc:     pattern(1, 20),
		pages:   basePages(16, 36),
		batch:   8,
		params: xcstream.HVMParams{{Index: xcstream.HVMParamStorePFN, Value: 20}, {Index: xcstream.HVMParamIOReqPFN, Value: 24},
			{Index: xcstream.HVMParamBufIOReqPFN, Value: 28}, {Index: xcstream.HVMParamConsolePFN, Value: 32},
			{Index: xcstream.HVMParamIdentPT, Value: 0x10000}, {Index: xcstream.HVMParamIOReqServerPFN, Value: 34}},
		context: []xcstream.HVMEntry{
			{Code: xcstream.HVMHeader, Data: header.Append(nil)},
			{Code: xcstream.HVMCPU, Data: pattern(3, 1032)},
			{Code: xcstream.HVMPIC, Data: pattern(4, 8)}, {Code: xcstream.HVMPIC, Instance: 1, Data: pattern(5, 8)},
			{Code: xcstream.HVMLAPIC, Data: pattern(6, 24)}, {Code: xcstream.HVMEnd},
		},
	}
}

// stream is the image as a saver writes it.
func (img *testImage) stream(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := xcstream.NewWriter(&b)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(typ xcstream.Type, body xcstream.Body) {
		t.Helper()
		must(w.Record(xcstream.Record{Type: typ, Body: body}))
	}
	must(w.Headers(xcstream.ImageHeader{Version: img.version}, img.domain))
	pv := img.domain.Type == xcstream.DomainPV
	if pv {
		put(xcstream.TypeX86PVInfo, img.info)
	}
	if img.version == xcstream.Version3 {
		put(xcstream.TypeX86CPUIDPolicy, img.cpuid)
		put(xcstream.TypeX86MSRPolicy, img.msrs)
		put(xcstream.TypeStaticDataEnd, nil)
	}
	if img.optional != nil {
		put(xcstream.Type(1<<31|0x1234), xcstream.Raw(img.optional))
	}
	if pv {
		put(xcstream.TypeX86PVP2MFrames, img.p2m)
	}
	for pfns := range slices.Chunk(slices.Sorted(maps.Keys(img.pages)), img.batch) {
		must(img.batchOf(w, pfns))
	}
	put(xcstream.TypeX86TSCInfo, xcstream.Raw(append(slices.Clone(img.tsc), 0, 0, 0, 0)))
	if pv {
		put(xcstream.TypeSharedInfo, xcstream.SharedInfo(img.shared))
		for _, v := range img.vcpus {
			put(v.Type, v.VCPU)
		}
	} else {
		put(xcstream.TypeHVMContext, xcstream.Raw(xcstream.AppendHVMContext(nil, img.context)))
		put(xcstream.TypeHVMParams, img.params)
	}
	put(xcstream.TypeEnd, nil)
	return b.Bytes()
}

// batchOf writes a PAGE_DATA.
func (img *testImage) batchOf(w *xcstream.Writer, pfns []guest.PFN) error {
	var entries []pageEntry
	var data [][]byte
	for _, p := range pfns {
		page := img.pages[p]
		entries = append(entries, xcstream.NewPageEntry(p, page.typ))
		if page.typ.HasData() {
			data = append(data, page.data)
		}
	}
	return w.PageData(entries, data)
}
