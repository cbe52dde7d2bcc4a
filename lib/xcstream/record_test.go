package xcstream

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"xenferry/lib/guest"
	"xenferry/lib/record"
)

// decode is v.Decode of body, in a mode.
func decode(v Decoder, body []byte, mode record.Mode) error {
	return v.Decode(record.NewCursor(body, mode))
}

func TestDecode(t *testing.T) {
	zeros := func(n int) []byte { return make([]byte, n) }
	at := func(n, i int, v byte) []byte {
		b := zeros(n)
		b[i] = v
		return b
	}
	for _, row := range []struct {
		name            string
		v               Decoder
		body            []byte
		strict, lenient error
	}{
		{"PV_INFO 64", new(PVInfo), []byte{8, 4, 0, 0, 0, 0, 0, 0}, nil, nil},
		{"PV_INFO short", new(PVInfo), []byte{8, 4, 0, 0, 0, 0, 0}, record.ErrLength, record.ErrLength},
		{"PV_INFO long", new(PVInfo), []byte{4, 3, 0, 0, 0, 0, 0, 0, 9}, record.ErrLength, nil},
		{"PV_INFO reserved", new(PVInfo), []byte{4, 3, 1, 0, 0, 0, 0, 0}, record.ErrReserved, nil},
		{"PV_INFO pair", new(PVInfo), []byte{4, 4, 0, 0, 0, 0, 0, 0}, record.ErrValue, record.ErrValue},
		{"P2M_FRAMES none", new(P2MFrames), zeros(8), nil, nil},
		{"P2M_FRAMES half a frame", new(P2MFrames), zeros(12), record.ErrLength, record.ErrLength},
		{"P2M_FRAMES short", new(P2MFrames), zeros(7), record.ErrLength, record.ErrLength},
		{"P2M_FRAMES order", new(P2MFrames), at(16, 0, 1), record.ErrValue, record.ErrValue},
		{"VCPU empty", new(VCPU), zeros(8), nil, nil},
		{"VCPU short", new(VCPU), zeros(7), record.ErrLength, record.ErrLength},
		{"VCPU reserved", new(VCPU), at(9, 4, 1), record.ErrReserved, nil},
		{"SHARED_INFO", new(SharedInfo), zeros(4096), nil, nil},
		{"SHARED_INFO short", new(SharedInfo), zeros(4095), record.ErrLength, record.ErrLength},
		{"SHARED_INFO long", new(SharedInfo), zeros(4097), record.ErrLength, record.ErrLength},
		{"TSC_INFO", new(TSCInfo), zeros(24), nil, nil},
		{"TSC_INFO long", new(TSCInfo), zeros(32), record.ErrLength, record.ErrLength},
		{"TSC_INFO reserved", new(TSCInfo), at(24, 20, 1), record.ErrReserved, nil},
		{"HVM_PARAMS none", new(HVMParams), zeros(8), nil, nil},
		{"HVM_PARAMS short", new(HVMParams), zeros(4), record.ErrLength, record.ErrLength},
		{"HVM_PARAMS uncounted", new(HVMParams), zeros(24), record.ErrLength, record.ErrLength},
		{"HVM_PARAMS missing", new(HVMParams), at(8, 3, 0x10), record.ErrLength, record.ErrLength},
		{"CPUID none", new(CPUIDPolicy), nil, record.ErrLength, record.ErrLength},
		{"CPUID part", new(CPUIDPolicy), zeros(25), record.ErrLength, record.ErrLength},
		{"CPUID", new(CPUIDPolicy), zeros(48), nil, nil},
		{"MSR none", new(MSRPolicy), nil, record.ErrLength, record.ErrLength},
		{"MSR part", new(MSRPolicy), zeros(24), record.ErrLength, record.ErrLength},
		{"MSR flags", new(MSRPolicy), at(16, 4, 1), record.ErrReserved, nil},
		{"PFN list part", new(PFNList), zeros(9), record.ErrLength, record.ErrLength},
		{"signal", new(Empty), nil, nil, nil},
		{"signal with body", new(Empty), zeros(1), record.ErrLength, nil},
		{"domain", new(Domain), []byte(`{"kind":"pv32"}`), nil, nil},
		{"domain of no kind", new(Domain), []byte(`{"vcpus":1}`), record.ErrValue, record.ErrValue},
		{"domain of bad kind", new(Domain), []byte(`{"kind":"arm"}`), record.ErrValue, record.ErrValue},
		{"domain cut off", new(Domain), []byte(`{"kind":"pv32"`), record.ErrValue, record.ErrValue},
	} {
		for mode, want := range map[record.Mode]error{record.Strict: row.strict, record.Lenient: row.lenient} {
			if err := decode(row.v, row.body, mode); !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s, %s: %v, want %v", row.name, modeName(mode), err, want)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	for _, row := range []struct {
		t         Type
		width     int
		good, bad []int
	}{
		{TypeX86PVVCPUBasic, 8, []int{0, 5168}, []int{1, 2800, 5169}},
		{TypeX86PVVCPUBasic, 4, []int{0, 2800}, []int{2799, 5168}},
		{TypeX86PVVCPUExtended, 8, []int{0, 56, 64, 128}, []int{129}},
		{TypeX86PVVCPUXSave, 8, []int{0, 16, 592, 2712}, []int{1, 15}},
		{TypeX86PVVCPUMSRs, 8, []int{0, 16, 112}, []int{8, 17}},
	} {
		for _, n := range row.good {
			if err := (&VCPU{Context: make([]byte, n)}).Check(row.t, row.width); err != nil {
				t.Errorf("%v, width %d, %d octets: %v", row.t, row.width, n, err)
			}
		}
		for _, n := range row.bad {
			if err := (&VCPU{Context: make([]byte, n)}).Check(row.t, row.width); !errors.Is(err, record.ErrLength) {
				t.Errorf("%v, width %d, %d octets: %v", row.t, row.width, n, err)
			}
		}
	}
	for _, row := range []struct {
		start, end uint32
		width      int
		frames     int
	}{
		{0, 0, 8, 1}, {0, 511, 8, 1}, {0, 512, 8, 2}, {511, 512, 8, 2}, {512, 1023, 8, 1},
		{0, 1023, 4, 1}, {0, 1024, 4, 2}, {0, math.MaxUint32, 8, 1 << 23},
	} {
		for _, off := range []int{-1, 0, 1} {
			f := P2MFrames{row.start, row.end, make([]guest.PFN, row.frames+off)}
			if err := f.Check(row.width); (err == nil) != (off == 0) {
				t.Errorf("%+v with %d frames: %v", row, row.frames+off, err)
			}
		}
	}
}

// What is written is read back the same, in strict mode.
func TestRoundTrip(t *testing.T) {
	u32, u64, u8s := rapid.Uint32(), rapid.Uint64(), rapid.SliceOf(rapid.Byte())
	msr := rapid.Custom(func(t *rapid.T) guest.MSR { return guest.MSR{Index: u32.Draw(t, "i"), Value: u64.Draw(t, "v")} })
	leaf := rapid.Custom(func(t *rapid.T) guest.CPUIDLeaf {
		return guest.CPUIDLeaf{Leaf: u32.Draw(t, "leaf"), Subleaf: u32.Draw(t, "sub"), A: u32.Draw(t, "a"), D: u32.Draw(t, "d")}
	})
	pfns := rapid.SliceOf(rapid.Map(u64, func(v uint64) guest.PFN { return guest.PFN(v) }))
	rapid.Check(t, func(t *rapid.T) {
		start := u32.Draw(t, "start")
		page := bytes.Repeat([]byte{rapid.Byte().Draw(t, "octet")}, guest.PageSize)
		var params HVMParams
		for _, v := range rapid.SliceOf(u64).Draw(t, "params") {
			params = append(params, HVMParam{v >> 32, v})
		}
		for typ, v := range map[Type]Body{
			TypeX86PVInfo:              rapid.SampledFrom([]PVInfo{{4, 3}, {8, 4}}).Draw(t, "info"),
			TypeX86PVP2MFrames:         P2MFrames{start, rapid.Uint32Min(start).Draw(t, "end"), pfns.Draw(t, "frames")},
			TypeX86PVVCPUXSave:         VCPU{u32.Draw(t, "vcpu"), u8s.Draw(t, "context")},
			TypeSharedInfo:             SharedInfo(page),
			TypeX86TSCInfo:             TSCInfo{u32.Draw(t, "mode"), u32.Draw(t, "khz"), u64.Draw(t, "ns"), u32.Draw(t, "inc")},
			TypeHVMParams:              params,
			TypeX86CPUIDPolicy:         CPUIDPolicy(rapid.SliceOfN(leaf, 1, 9).Draw(t, "leaves")),
			TypeX86MSRPolicy:           MSRPolicy(rapid.SliceOfN(msr, 1, 9).Draw(t, "msrs")),
			TypeCheckpointDirtyPFNList: PFNList(pfns.Draw(t, "list")),
			TypeHVMContext:             Raw(u8s.Draw(t, "blob")),
			TypeVerify:                 Empty{},
			TypeDomain: Domain{guest.Spec{Name: rapid.String().Draw(t, "name"), UUID: uuid.UUID(page[:16]),
				Kind: guest.PVH, VCPUs: start, MaxPages: u64.Draw(t, "pages")}},
		} {
			got := typ.New()
			if err := decode(got, v.Append(nil), record.Strict); err != nil {
				t.Fatalf("%v: %v", typ, err)
			}
			if again := got.Append(nil); !bytes.Equal(again, v.Append(nil)) {
				t.Fatalf("%v: wrote % x, read % x", typ, v.Append(nil), again)
			}
		}
	})
}

func TestPageEntry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pfn, typ := guest.PFN(rapid.Uint64Range(0, 1<<52-1).Draw(t, "pfn")), guest.PageType(rapid.Uint8Range(0, 15).Draw(t, "type"))
		e := NewPageEntry(pfn, typ)
		if e.PFN() != pfn || e.Type() != typ || e.Reserved() != 0 {
			t.Errorf("%v %v: %#x", pfn, typ, uint64(e))
		}
	})
	if e := PageEntry(math.MaxUint64); e.Reserved() != 0xff || e.Type() != guest.XTab || e.PFN() != 1<<52-1 {
		t.Errorf("all ones: %v %v %v", e.Reserved(), e.Type(), e.PFN())
	}
}

// The octets that the specification fixes.
func TestFixed(t *testing.T) {
	page := make([]byte, guest.PageSize)
	for want, w := range map[string]func(*Writer) error{
		"ffffffffffffffff58454e46000000030000000000000000" + "01000000" + "0c000000" + "04000000" + "11000000": func(w *Writer) error {
			return w.Headers(ImageHeader{Version: Version3}, DomainHeader{DomainPV, guest.Release{Major: 4, Minor: 17}})
		},
		"1000000000000000": func(w *Writer) error { return w.Record(Record{Type: TypeStaticDataEnd}) },
		"0000000000000000": func(w *Writer) error { return w.Record(Record{Type: TypeEnd}) },
		"0100000010100000" + "0100000000000000" + "0000000000000000" + hex.EncodeToString(page): func(w *Writer) error {
			return w.PageData([]PageEntry{NewPageEntry(0, guest.NoTab)}, [][]byte{page})
		},
		"0600000018000000" + "0300000000000000" + "01000000000000000200000000000000": func(w *Writer) error {
			return w.Record(Record{TypeX86PVVCPUXSave, VCPU{3, []byte{1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0}}})
		},
		"0900000003000000" + "0102030000000000": func(w *Writer) error { return w.Record(Record{TypeHVMContext, Raw{1, 2, 3}}) },
	} {
		var out bytes.Buffer
		if err := w(NewWriter(&out)); err != nil || hex.EncodeToString(out.Bytes()) != want {
			t.Errorf("%x, %v, want %s", out.Bytes(), err, want)
		}
	}
}

// The Writer refuses what would be a broken stream, and says so before an octet is out.
func TestWriterRefuses(t *testing.T) {
	page := make([]byte, guest.PageSize)
	for _, row := range []struct {
		name    string
		entries []PageEntry
		pages   [][]byte
		want    error
	}{
		{"no entries", nil, nil, record.ErrValue},
		{"a page too many", []PageEntry{NewPageEntry(1, guest.XTab)}, [][]byte{page}, record.ErrLength},
		{"a page too few", []PageEntry{0}, nil, record.ErrLength},
		{"half a page", []PageEntry{0}, [][]byte{page[:2048]}, record.ErrLength},
		{"too large", make([]PageEntry, 32705), make([][]byte, 32705), record.ErrLimit},
	} {
		var out bytes.Buffer
		if err := NewWriter(&out).PageData(row.entries, row.pages); !errors.Is(err, row.want) || out.Len() != 0 {
			t.Errorf("%s: %v, %d octets out", row.name, err, out.Len())
		}
	}
	var out bytes.Buffer
	if err := NewWriter(&out).Record(Record{TypeHVMContext, Raw(make([]byte, MaxRecord+1))}); !errors.Is(err, record.ErrLimit) || out.Len() != 0 {
		t.Errorf("record too large: %v, %d octets out", err, out.Len())
	}
}

// FuzzDecode: the first octet says which record. What strict decoding takes is written back the same, and lenient
// decoding takes it too and sets the same.
func FuzzDecode(f *testing.F) {
	types := []Type{TypeEnd, TypeX86PVInfo, TypeX86PVP2MFrames, TypeX86PVVCPUBasic, TypeSharedInfo, TypeX86TSCInfo,
		TypeHVMContext, TypeHVMParams, TypeCheckpointDirtyPFNList, TypeX86CPUIDPolicy, TypeX86MSRPolicy}
	for _, v := range vectors(f) {
		r := NewReader(bytes.NewReader(v.Data), record.Lenient, 0)
		for err := r.Headers(); err == nil; {
			var t Type
			if t, _, err = r.Next(); err != nil || t == TypeEnd {
				break
			}
			body, bodyErr := r.Body()
			for i, known := range types {
				if known == t && len(body) < 512 {
					f.Add(append([]byte{byte(i)}, body...))
				}
			}
			err = bodyErr
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 {
			return
		}
		typ, body := types[int(in[0])%len(types)], in[1:]
		strict, lenient := typ.New(), typ.New()
		if decode(strict, body, record.Strict) != nil {
			return
		}
		if again := strict.Append(nil); !bytes.Equal(again, body) {
			t.Errorf("%v: accepts % x, writes % x", typ, body, again)
		}
		if err := decode(lenient, body, record.Lenient); err != nil || !reflect.DeepEqual(strict, lenient) {
			t.Errorf("%v: strict %v, lenient %v, %v", typ, strict, lenient, err)
		}
	})
}
