package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// chunk is a record of a stream with its header and padding; the first chunk of a stream is its headers.
type chunk struct {
	typ    xcstream.Type
	octets []byte
}

// split cuts a valid libxc stream into its chunks.
func split(t testing.TB, stream []byte) []chunk {
	const headers = xcstream.ImageHeaderSize + xcstream.DomainHeaderSize
	chunks := []chunk{{^xcstream.Type(0), stream[:headers]}}
	for rest := stream[headers:]; len(rest) > 0; {
		h := record.Header{Type: binary.LittleEndian.Uint32(rest), Length: binary.LittleEndian.Uint32(rest[4:])}
		n := record.HeaderSize + int(h.Padded())
		chunks = append(chunks, chunk{xcstream.Type(h.Type), rest[:n:n]})
		rest = rest[n:]
	}
	return chunks
}

func join(chunks []chunk) (stream []byte) {
	for _, c := range chunks {
		stream = append(stream, c.octets...)
	}
	return stream
}

// edit is a change to a stream's chunks.
type edit func(chunks []chunk) []chunk

// drop removes all records of a type.
func drop(typ xcstream.Type) edit {
	return func(chunks []chunk) []chunk {
		return slices.DeleteFunc(chunks, func(c chunk) bool { return c.typ == typ })
	}
}

// put adds a record before the first of another type.
func put(before, typ xcstream.Type, body []byte) edit {
	return func(chunks []chunk) []chunk {
		octets := record.AppendRecord(nil, uint32(typ), xcstream.Raw(body).Append)
		return slices.Insert(chunks, index(chunks, before), chunk{typ, octets})
	}
}

// move puts the first record of a type before the first of another.
func move(typ, before xcstream.Type) edit {
	return func(chunks []chunk) []chunk {
		i := index(chunks, typ)
		c := chunks[i]
		chunks = slices.Delete(chunks, i, i+1)
		return slices.Insert(chunks, index(chunks, before), c)
	}
}

// again repeats the first record of a type before the first of another.
func again(typ, before xcstream.Type) edit {
	return func(chunks []chunk) []chunk {
		return slices.Insert(chunks, index(chunks, before), chunks[index(chunks, typ)])
	}
}

// flip changes an octet of the first record of a type, or of the headers; the offset counts from the record's header.
func flip(typ xcstream.Type, offset int, bits byte) edit {
	return func(chunks []chunk) []chunk {
		c := &chunks[index(chunks, typ)]
		c.octets = bytes.Clone(c.octets)
		c.octets[offset] ^= bits
		return chunks
	}
}

func index(chunks []chunk, typ xcstream.Type) int {
	return slices.IndexFunc(chunks, func(c chunk) bool { return c.typ == typ })
}

const headers = ^xcstream.Type(0)

// What a stream can be, but for refused.
const (
	accepted = "accepted"
	warned   = "warned"  // an error if pedantic
	erratum  = "erratum" // a warning even then
)

// verdictRow is a stream of one of the kinds with changes, and what it is or why it is refused.
type verdictRow struct {
	name    string
	kind    string
	edits   []edit
	verdict string
	want    error // for no verdict
}

// verdictRows are what the issue says is accepted, and what refused.
func verdictRows() []verdictRow {
	twice := []pageEntry{xcstream.NewPageEntry(9, guest.XTab), xcstream.NewPageEntry(2, guest.XTab), xcstream.NewPageEntry(9, guest.XTab)}
	return []verdictRow{
		{"as written", "pv64", nil, accepted, nil},
		{"as written", "pv32", nil, accepted, nil},
		{"as written", "hvm", nil, accepted, nil},
		{"optional record among static data", "pv64", []edit{put(xcstream.TypeX86CPUIDPolicy, 0x80001234, []byte("odd"))}, accepted, nil},
		{"optional record among pages", "hvm", []edit{put(xcstream.TypePageData, 0xffffffff, nil)}, accepted, nil},
		{"optional record before END", "pv32", []edit{put(xcstream.TypeEnd, 0x80000000, []byte{1})}, accepted, nil},
		{"PARAMS before CONTEXT", "hvm", []edit{move(xcstream.TypeHVMParams, xcstream.TypeHVMContext)}, accepted, nil},
		{"PARAMS twice", "hvm", []edit{again(xcstream.TypeHVMParams, xcstream.TypeHVMContext)}, accepted, nil},
		{"P2M_FRAMES twice", "pv64", []edit{again(xcstream.TypeX86PVP2MFrames, xcstream.TypeX86TSCInfo)}, accepted, nil},
		{"TSC before pages", "pv64", []edit{move(xcstream.TypeX86TSCInfo, xcstream.TypePageData)}, accepted, nil},
		{"SHARED_INFO behind vCPUs", "pv64", []edit{move(xcstream.TypeSharedInfo, xcstream.TypeEnd)}, accepted, nil},
		{"state among pages", "hvm", []edit{put(xcstream.TypeX86TSCInfo, xcstream.TypePageData, onePage(40)), again(xcstream.TypeHVMParams, xcstream.TypeX86TSCInfo)}, accepted, nil},
		{"VERIFY", "hvm", []edit{put(xcstream.TypeX86TSCInfo, xcstream.TypeVerify, nil), put(xcstream.TypeX86TSCInfo, xcstream.TypePageData, onePage(2))}, accepted, nil},
		{"no TSC", "hvm", []edit{drop(xcstream.TypeX86TSCInfo)}, accepted, nil},
		{"no policies", "pv64", []edit{drop(xcstream.TypeX86CPUIDPolicy), drop(xcstream.TypeX86MSRPolicy)}, accepted, nil},
		{"version 2", "pv64", []edit{drop(xcstream.TypeX86CPUIDPolicy), drop(xcstream.TypeX86MSRPolicy), drop(xcstream.TypeStaticDataEnd), flip(headers, 15, 1)}, accepted, nil},

		{"a PFN twice in a record", "hvm", []edit{put(xcstream.TypePageData, xcstream.TypePageData, appendPageData(nil, twice))}, warned, nil},
		{"options", "hvm", []edit{flip(headers, 17, 2)}, warned, nil},
		{"reserved of the image header", "hvm", []edit{flip(headers, 23, 1)}, warned, nil},
		{"reserved of the domain header", "hvm", []edit{flip(headers, 30, 1)}, warned, nil},
		{"reserved of PV_INFO", "pv64", []edit{flip(xcstream.TypeX86PVInfo, 15, 1)}, warned, nil},
		{"reserved of PAGE_DATA", "hvm", []edit{flip(xcstream.TypePageData, 12, 1)}, warned, nil},
		{"reserved of a page's entry", "hvm", []edit{flip(xcstream.TypePageData, 22, 0x80)}, warned, nil},
		{"reserved of TSC_INFO", "hvm", []edit{flip(xcstream.TypeX86TSCInfo, 28, 1)}, warned, nil},
		{"reserved of a vCPU", "pv32", []edit{flip(xcstream.TypeX86PVVCPUBasic, 12, 1)}, warned, nil},
		{"flags of a policy's MSR", "pv32", []edit{flip(xcstream.TypeX86MSRPolicy, 12, 1)}, warned, nil},
		{"flags of a vCPU's MSR", "pv32", []edit{flip(xcstream.TypeX86PVVCPUMSRs, 20, 1)}, warned, nil},
		{"padding", "hvm", []edit{put(xcstream.TypeEnd, 0x80000001, []byte{1}), flip(0x80000001, 15, 1)}, warned, nil},
		{"vCPU twice", "pv64", []edit{again(xcstream.TypeX86PVVCPUXSave, xcstream.TypeEnd)}, warned, nil},
		{"SHARED_INFO twice", "pv64", []edit{again(xcstream.TypeSharedInfo, xcstream.TypeEnd)}, warned, nil},
		{"CONTEXT twice", "hvm", []edit{again(xcstream.TypeHVMContext, xcstream.TypeEnd)}, warned, nil},
		{"EXTENDED of another vCPU", "pv64", []edit{flip(xcstream.TypeX86PVVCPUExtended, 16, 1)}, warned, nil},
		{"an HVM entry nobody writes", "hvm", []edit{flip(xcstream.TypeHVMContext, 8+32, 0x40)}, warned, nil},

		{"no parameters", "hvm", []edit{drop(xcstream.TypeHVMParams), put(xcstream.TypeEnd, xcstream.TypeHVMParams, make([]byte, 8))}, erratum, nil},
		{"empty EXTENDED", "pv64", []edit{drop(xcstream.TypeX86PVVCPUExtended), put(xcstream.TypeEnd, xcstream.TypeX86PVVCPUExtended, make([]byte, 8))}, erratum, nil},
		{"empty XSAVE", "pv64", []edit{drop(xcstream.TypeX86PVVCPUXSave), put(xcstream.TypeEnd, xcstream.TypeX86PVVCPUXSave, make([]byte, 8))}, erratum, nil},
		{"empty MSRS", "pv64", []edit{drop(xcstream.TypeX86PVVCPUMSRs), put(xcstream.TypeEnd, xcstream.TypeX86PVVCPUMSRs, make([]byte, 8))}, erratum, nil},

		{"no STATIC_DATA_END", "pv64", []edit{drop(xcstream.TypeStaticDataEnd)}, "", record.ErrOrder},
		{"no STATIC_DATA_END", "hvm", []edit{drop(xcstream.TypeStaticDataEnd)}, "", record.ErrOrder},
		{"STATIC_DATA_END in version 2", "hvm", []edit{drop(xcstream.TypeX86CPUIDPolicy), drop(xcstream.TypeX86MSRPolicy), flip(headers, 15, 1)}, "", record.ErrOrder},
		{"policy in version 2", "hvm", []edit{drop(xcstream.TypeX86MSRPolicy), drop(xcstream.TypeStaticDataEnd), flip(headers, 15, 1)}, "", record.ErrOrder},
		{"policy behind static data", "hvm", []edit{move(xcstream.TypeX86CPUIDPolicy, xcstream.TypePageData)}, "", record.ErrOrder},
		{"PV_INFO behind static data", "pv64", []edit{move(xcstream.TypeX86PVInfo, xcstream.TypeX86PVP2MFrames)}, "", record.ErrOrder},
		{"TSC among static data", "hvm", []edit{move(xcstream.TypeX86TSCInfo, xcstream.TypeX86CPUIDPolicy)}, "", record.ErrOrder},
		{"P2M_FRAMES behind the pages", "pv64", []edit{move(xcstream.TypeX86PVP2MFrames, xcstream.TypeX86TSCInfo)}, "", record.ErrOrder},
		{"vCPU before the pages", "pv64", []edit{move(xcstream.TypeX86PVVCPUBasic, xcstream.TypePageData)}, "", record.ErrOrder},
		{"SHARED_INFO before the pages", "pv64", []edit{move(xcstream.TypeSharedInfo, xcstream.TypePageData)}, "", record.ErrOrder},
		{"CONTEXT before the pages", "hvm", []edit{move(xcstream.TypeHVMContext, xcstream.TypePageData)}, "", record.ErrOrder},
		{"PARAMS before the pages", "hvm", []edit{move(xcstream.TypeHVMParams, xcstream.TypePageData)}, "", record.ErrOrder},
		{"record behind END", "hvm", []edit{move(xcstream.TypeEnd, xcstream.TypeHVMParams)}, "", ErrTrailing},
		{"two ENDs", "hvm", []edit{again(xcstream.TypeEnd, xcstream.TypeEnd)}, "", ErrTrailing},
		{"no END", "hvm", []edit{drop(xcstream.TypeEnd)}, "", record.ErrTruncated},
		{"no PV_INFO", "pv64", []edit{drop(xcstream.TypeX86PVInfo)}, "", record.ErrOrder},
		{"no P2M_FRAMES", "pv64", []edit{drop(xcstream.TypeX86PVP2MFrames)}, "", record.ErrOrder},
		{"no SHARED_INFO", "pv64", []edit{drop(xcstream.TypeSharedInfo)}, "", record.ErrMissing},
		{"no vCPU", "pv32", []edit{drop(xcstream.TypeX86PVVCPUBasic)}, "", record.ErrMissing},
		{"no vCPU 0", "pv32", []edit{flip(xcstream.TypeX86PVVCPUBasic, 8, 4)}, "", record.ErrMissing},
		{"no CONTEXT", "hvm", []edit{drop(xcstream.TypeHVMContext)}, "", record.ErrMissing},
		{"empty CONTEXT", "hvm", []edit{drop(xcstream.TypeHVMContext), put(xcstream.TypeEnd, xcstream.TypeHVMContext, nil)}, "", record.ErrMissing},
		{"CONTEXT without HEADER", "hvm", []edit{flip(xcstream.TypeHVMContext, 8, 2)}, "", record.ErrMissing},
		{"CONTEXT with an entry too long", "hvm", []edit{flip(xcstream.TypeHVMContext, 8+32+4+2, 1)}, "", record.ErrLength},
		{"no pages", "hvm", []edit{drop(xcstream.TypePageData)}, "", record.ErrOrder},
		{"PFN above the P2M", "pv64", []edit{put(xcstream.TypeX86TSCInfo, xcstream.TypePageData, onePage(uint64(testMaxPFN)+1))}, "", record.ErrValue},
		{"P2M frame above the P2M", "pv64", []edit{flip(xcstream.TypeX86PVP2MFrames, 17, 1)}, "", record.ErrValue},
		{"vCPU 8192", "pv64", []edit{flip(xcstream.TypeX86PVVCPUXSave, 9, 0x20)}, "", record.ErrValue},
		{"MSRS without BASIC, with flags", "pv32", []edit{put(xcstream.TypeEnd, xcstream.TypeX86PVVCPUMSRs,
			xcstream.VCPU{ID: 7, Context: xcstream.AppendMSRs(nil, []guest.MSR{{Index: 1, Flags: 1}})}.Append(nil))}, "", record.ErrMissing},
		{"unknown mandatory record", "hvm", []edit{put(xcstream.TypeEnd, 0x13, nil)}, "", record.ErrUnknown},
		{"TOOLSTACK", "hvm", []edit{put(xcstream.TypeEnd, xcstream.TypeToolstack, nil)}, "", record.ErrOrder},
		{"dirty PFNs", "hvm", []edit{put(xcstream.TypeEnd, xcstream.TypeCheckpointDirtyPFNList, nil)}, "", record.ErrOrder},
		{"CHECKPOINT without libxl", "hvm", []edit{put(xcstream.TypeEnd, xcstream.TypeCheckpoint, nil)}, "", record.ErrOrder},
		{"PV record in HVM", "hvm", []edit{put(xcstream.TypeEnd, xcstream.TypeX86PVInfo, xcstream.PVInfo{Width: 8, Levels: 4}.Append(nil))}, "", record.ErrOrder},
		{"HVM record in PV", "pv64", []edit{put(xcstream.TypeEnd, xcstream.TypeHVMParams, make([]byte, 8))}, "", record.ErrOrder},
		{"big-endian", "hvm", []edit{flip(headers, 17, 1)}, "", record.ErrValue},
		{"END with a body", "hvm", []edit{drop(xcstream.TypeEnd), func(c []chunk) []chunk {
			return append(c, chunk{0, record.AppendRecord(nil, 0, xcstream.Raw("12345678").Append)})
		}}, "", record.ErrLength},
	}
}

// stream is the row's.
func (row *verdictRow) stream(t testing.TB) []byte {
	chunks := split(t, kindImage(row.kind).stream(t))
	for _, e := range row.edits {
		chunks = e(chunks)
	}
	return join(chunks)
}

func TestVerdicts(t *testing.T) {
	for _, row := range verdictRows() {
		t.Run(row.kind+"/"+row.name, func(t *testing.T) {
			stream := row.stream(t)
			plain := verified(t, stream, Options{Layer: LibXC})
			pedantic := verified(t, stream, Options{Layer: LibXC, Pedantic: true})
			switch row.verdict {
			case accepted:
				if !plain.Valid || !pedantic.Valid || plain.Warnings.Count != 0 {
					t.Errorf("refused: %v; warnings %v", failure(pedantic), plain.Warnings.First)
				}
			case warned:
				if !plain.Valid || pedantic.Valid || plain.Warnings.Count == 0 {
					t.Errorf("valid %v (%v), pedantic %v, %d warnings", plain.Valid, failure(plain), pedantic.Valid, plain.Warnings.Count)
				}
			case erratum:
				if !plain.Valid || !pedantic.Valid || pedantic.Warnings.Count == 0 {
					t.Errorf("valid %v, pedantic %v (%v), %d warnings", plain.Valid, pedantic.Valid, failure(pedantic), pedantic.Warnings.Count)
				}
			default:
				if err := failure(plain); plain.Valid || !errors.Is(err, row.want) {
					t.Errorf("got %v, want: %v", err, row.want)
				}
			}
		})
	}
}

func kindImage(name string) *testImage {
	for _, k := range kinds {
		if k.name == name {
			return k.image(1)
		}
	}
	panic("no kind " + name)
}

func verified(t testing.TB, stream []byte, opts Options) *Report {
	t.Helper()
	r, err := Verify(bytes.NewReader(stream), opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// onePage is the body of a PAGE_DATA of one PFN that is not there.
func onePage(p uint64) []byte {
	return appendPageData(nil, []pageEntry{xcstream.NewPageEntry(guest.PFN(p), guest.XTab)})
}

// appendPageData adds the body of a PAGE_DATA whose entries have no data.
func appendPageData(b []byte, entries []pageEntry) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(entries)))
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint64(b, uint64(e))
	}
	return b
}
