package verify

import (
	"cmp"
	"fmt"
	"io"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// image is a domain as a stream holds it when all its records have been applied. It keeps the state records, and of pages
// only where they are.
type image struct {
	name    string
	src     io.ReaderAt
	domain  xcstream.DomainType
	release guest.Release
	info    xcstream.PVInfo
	pages   pageIndex
	frames  map[uint64]guest.PFN // of the P2M, by their place in it
	maxPFN  uint64
	cpuid   []guest.CPUIDLeaf
	msrs    []guest.MSR
	tsc     *xcstream.TSCInfo
	shared  []byte
	vcpus   map[vcpuKey][]byte
	params  map[uint64]uint64
	context []xcstream.HVMEntry
	size    int64  // of the stream
	window  []byte // of src, from at on
	at      int64
}

// vcpuKey names a PV vCPU record.
type vcpuKey struct {
	id  uint32
	typ xcstream.Type
}

// loadImage reads a stream from src, verifying it on the way.
func loadImage(name string, src io.ReaderAt, opts Options) (*image, *Report, error) {
	img := &image{
		name: name, src: src, pages: pageIndex{}, frames: map[uint64]guest.PFN{},
		vcpus: map[vcpuKey][]byte{}, params: map[uint64]uint64{},
	}
	report, err := verify(io.NewSectionReader(src, 0, 1<<62), opts, img)
	if err != nil {
		return nil, nil, fmt.Errorf("image %s: %w", name, err)
	}
	img.size = int64(report.Octets)
	return img, report, nil
}

// record keeps a state record. The last of a type counts, as for restore.
func (img *image) record(x *libxc, value any) error {
	img.domain, img.release = x.r.Domain.Type, x.r.Domain.Xen
	switch v := value.(type) {
	case *xcstream.PVInfo:
		img.info = *v
	case *xcstream.P2MFrames:
		img.addFrames(v)
	case *vcpuRecord:
		if len(v.Context) > 0 {
			img.vcpus[vcpuKey{v.ID, v.Type}] = v.Context
		}
	case *xcstream.SharedInfo:
		img.shared = *v
	case *xcstream.TSCInfo:
		img.tsc = v
	case *xcstream.CPUIDPolicy:
		img.cpuid = *v
	case *xcstream.MSRPolicy:
		img.msrs = *v
	case *xcstream.HVMParams:
		for _, p := range *v {
			img.params[p.Index] = p.Value
		}
	case *contextBlob:
		var err error
		img.context, err = xcstream.ParseHVMContext(*v)
		return err
	}
	return nil
}

func (img *image) addFrames(f *xcstream.P2MFrames) {
	first := uint64(f.Start) / img.wordsPerPage()
	for i, frame := range f.Frames {
		img.frames[first+uint64(i)] = frame
	}
	img.maxPFN = max(img.maxPFN, uint64(f.End))
}

// wordsPerPage is how many words of a PV guest a page has.
func (img *image) wordsPerPage() uint64 { return guest.PageSize / uint64(img.info.Width) }

// batch keeps where the pages of a PAGE_DATA are.
func (img *image) batch(entries []pageEntry, offset uint64) error {
	for _, e := range entries {
		img.pages.set(e, offset)
		if e.Type().HasData() {
			offset += guest.PageSize
		}
	}
	return nil
}

// windowSize is how much of the input is read at once: pages are mostly asked for in the order in which they are there.
const windowSize = 512 << 10

// page returns the contents of a page that has data. They are good until the next call.
func (img *image) page(ref pageRef) ([]byte, error) {
	at := ref.offset()
	if at < img.at || at+guest.PageSize > img.at+int64(len(img.window)) {
		if img.window == nil {
			img.window = make([]byte, min(windowSize, img.size))
		}
		n, err := img.src.ReadAt(img.window[:cap(img.window)], at)
		if n < guest.PageSize {
			return nil, fmt.Errorf("image %s: offset %#x: %w", img.name, at, err)
		}
		img.window, img.at = img.window[:n], at
	}
	return img.window[at-img.at:][:guest.PageSize], nil
}

// pageIndex is where pages are: their pageRefs by PFN, in chunks of chunkRefs for the PFNs that have any.
type pageIndex map[uint64]*[chunkRefs]pageRef

const chunkRefs = 512

// pageRef is a page's type in bits 60-63 and, for one with data, its offset in the input. 0 is no page: XTAB, or none at all.
type pageRef uint64

func (r pageRef) typ() guest.PageType {
	if r == 0 {
		return guest.XTab
	}
	return guest.PageType(r >> 60)
}

func (r pageRef) offset() int64 { return int64(r & (1<<60 - 1)) }

func (x pageIndex) set(e pageEntry, offset uint64) {
	ref := pageRef(uint64(e.Type())<<60 | offset)
	if e.Type() == guest.XTab {
		ref = 0
	}
	pfn := uint64(e.PFN())
	chunk := x[pfn/chunkRefs]
	if chunk == nil {
		if ref == 0 {
			return
		}
		chunk = new([chunkRefs]pageRef)
		x[pfn/chunkRefs] = chunk
	}
	chunk[pfn%chunkRefs] = ref
}

func (x pageIndex) get(p guest.PFN) pageRef {
	if chunk := x[uint64(p)/chunkRefs]; chunk != nil {
		return chunk[uint64(p)%chunkRefs]
	}
	return 0
}

// union calls f for each PFN that has a page in x or y, ascending.
func (x pageIndex) union(y pageIndex, f func(p guest.PFN, inX, inY pageRef) error) error {
	for _, k := range unionOf(x, y, cmp.Compare) {
		for p := guest.PFN(k * chunkRefs); p < guest.PFN((k+1)*chunkRefs); p++ {
			inX, inY := x.get(p), y.get(p)
			if inX == 0 && inY == 0 {
				continue
			}
			if err := f(p, inX, inY); err != nil {
				return err
			}
		}
	}
	return nil
}
