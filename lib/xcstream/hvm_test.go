package xcstream

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/record"
)

// hvmEntry is an entry's octets: descriptor and n octets that are v.
func hvmEntry(code HVMCode, instance uint16, data []byte) []byte {
	return AppendHVMContext(nil, []HVMEntry{{Code: code, Instance: instance, Data: data}})
}

var hvmHead = hvmEntry(HVMHeader, 0, HVMHeaderData{Changeset: 1, CPUID: 2, TSCKHz: 3}.Append(nil))

func TestParseHVMContext(t *testing.T) {
	cpu, end := hvmEntry(HVMCPU, 1, make([]byte, 1032)), hvmEntry(HVMEnd, 0, nil)
	badMagic := bytes.Clone(hvmHead)
	badMagic[8]++
	badVersion := bytes.Clone(hvmHead)
	badVersion[12]++
	for _, row := range []struct {
		name string
		blob [][]byte
		want error
		at   string
	}{
		{"good", [][]byte{hvmHead, cpu, end}, nil, ""},
		{"nothing", nil, record.ErrMissing, "offset 0x0:"},
		{"no header", [][]byte{cpu, end}, record.ErrMissing, "offset 0x0:"},
		{"header short", [][]byte{hvmEntry(HVMHeader, 0, make([]byte, 23)), end}, record.ErrValue, "offset 0x0:"},
		{"magic", [][]byte{badMagic, end}, record.ErrValue, "offset 0x0:"},
		{"version", [][]byte{badVersion, end}, record.ErrValue, "offset 0x0:"},
		{"header again", [][]byte{hvmHead, hvmHead, end}, record.ErrValue, "offset 0x20:"},
		{"no end", [][]byte{hvmHead, cpu}, record.ErrMissing, "offset 0x430:"},
		{"half a descriptor", [][]byte{hvmHead, {1, 2, 3}}, record.ErrLength, "offset 0x20:"},
		{"length overrun", [][]byte{hvmHead, cpu[:len(cpu)-1]}, record.ErrLength, "offset 0x20:"},
		{"length of 4 GiB", [][]byte{hvmHead, {2, 0, 0, 0, 255, 255, 255, 255}}, record.ErrLength, "offset 0x20:"},
		{"end with data", [][]byte{hvmHead, hvmEntry(HVMEnd, 0, []byte{0})}, record.ErrLength, "offset 0x20:"},
		{"behind the end", [][]byte{hvmHead, end, {0}}, record.ErrLength, "offset 0x20:"},
	} {
		entries, err := ParseHVMContext(slices.Concat(row.blob...))
		if !errors.Is(err, row.want) || err != nil && (row.want == nil || !strings.Contains(err.Error(), row.at)) {
			t.Errorf("%s: %v, want %v at %q", row.name, err, row.want, row.at)
		}
		if row.want == nil && (len(entries) != 3 || entries[1].Code != HVMCPU || entries[1].Instance != 1 || entries[1].Offset != 0x20) {
			t.Errorf("%s: %+v", row.name, entries)
		}
	}
}

func TestCheckHVMContext(t *testing.T) {
	for _, row := range []struct {
		name    string
		entries []HVMEntry
		want    error
	}{
		{"in order", []HVMEntry{{Code: HVMCPU, Data: make([]byte, 1032)}, {Code: HVMCPU, Instance: 1, Data: make([]byte, 1024)}, {Code: HVMMTRR, Data: make([]byte, 240)}}, nil},
		{"descending", []HVMEntry{{Code: HVMMTRR, Data: make([]byte, 240)}, {Code: HVMPIT, Data: make([]byte, 56)}}, record.ErrUnusual},
		{"again", []HVMEntry{{Code: HVMPIT, Data: make([]byte, 56)}, {Code: HVMPIT, Data: make([]byte, 56)}}, record.ErrUnusual},
		{"no such code", []HVMEntry{{Code: 21}}, record.ErrUnknown},
		{"no such length", []HVMEntry{{Code: HVMRTC, Data: make([]byte, 20)}}, record.ErrLength},
		{"xsave too short", []HVMEntry{{Code: HVMCPUXSave, Data: make([]byte, 599)}}, record.ErrLength},
	} {
		entries := append([]HVMEntry{{Code: HVMHeader, Data: make([]byte, 24)}}, row.entries...)
		if err := CheckHVMContext(append(entries, HVMEntry{})); !errors.Is(err, row.want) || row.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
}

func TestLoadableBy(t *testing.T) {
	x := func(minor uint32) guest.Release { return guest.Release{Major: 4, Minor: minor} }
	for _, row := range []struct {
		code    HVMCode
		length  int
		yes, no []guest.Release
	}{
		{HVMCPU, 1032, []guest.Release{x(7), x(17), x(22), {Major: 5}}, []guest.Release{x(6)}},
		{HVMCPU, 1024, []guest.Release{x(6), x(7), x(22)}, nil},
		{HVMCPU, 1016, []guest.Release{x(6), x(22)}, nil},
		{HVMCPU, 1040, nil, []guest.Release{x(6), x(22)}},
		{HVMLAPIC, 24, []guest.Release{x(6), x(17), x(22)}, nil},
		{HVMLAPIC, 32, []guest.Release{x(18), x(21)}, []guest.Release{x(17)}},
		{HVMRTC, 16, []guest.Release{x(13), x(14), x(20)}, nil},
		{HVMRTC, 24, []guest.Release{x(14), x(20)}, []guest.Release{x(13)}},
		{HVMViridianVCPU, 8, []guest.Release{x(6), x(7), x(13)}, nil},
		{HVMViridianVCPU, 216, []guest.Release{x(13)}, []guest.Release{x(12)}},
		{HVMVMCEVCPU, 24, []guest.Release{x(6), x(10)}, nil},
		{HVMVMCEVCPU, 32, []guest.Release{x(10)}, []guest.Release{x(9)}},
		{HVMMTRR, 239, nil, []guest.Release{x(17)}},
		{HVMCPUXSave, 24 + 832, []guest.Release{x(6), x(22)}, nil},
		{21, 8, nil, []guest.Release{x(22)}},
	} {
		e := HVMEntry{Code: row.code, Data: make([]byte, row.length)}
		for _, r := range row.yes {
			if err := e.LoadableBy(r); err != nil {
				t.Errorf("%v of %d by %v: %v", row.code, row.length, r, err)
			}
		}
		for _, r := range row.no {
			if err := e.LoadableBy(r); err == nil {
				t.Errorf("%v of %d by %v: loaded", row.code, row.length, r)
			}
		}
	}
}

func TestHVMViews(t *testing.T) {
	data := make([]byte, 1032)
	for i := range data {
		data[i] = byte(i / 8)
	}
	word := func(off int) uint64 { return le.Uint64(data[off:]) }
	e := HVMEntry{Code: HVMCPU, Data: data}
	v, err := e.View()
	if err != nil {
		t.Fatal(err)
	}
	cpu := v.(*HVMCPUData)
	for name, row := range map[string]struct{ got, want uint64 }{
		"rax": {cpu.GPR[0], word(512)}, "rip": {cpu.RIP, word(640)}, "rflags": {cpu.RFLAGS, word(648)},
		"cr0": {cpu.CR0, word(656)}, "cr3": {cpu.CR3, word(672)}, "cr4": {cpu.CR4, word(680)},
		"cs": {uint64(cpu.Sel[0]), uint64(uint32(word(736)))}, "cs limit": {uint64(cpu.Limit[0]), uint64(uint32(word(768)))},
		"cs base": {cpu.Base[0], word(808)}, "cs attr": {uint64(cpu.Attr[0]), uint64(uint32(word(888)))},
		"efer": {cpu.EFER, word(992)}, "tsc_aux": {cpu.TSCAux, word(1000)}, "tsc": {cpu.TSC, word(HVMCPUTSC(1032))},
		"pending": {uint64(cpu.PendingEvent), uint64(uint32(word(1016)))}, "flags": {uint64(cpu.StateFlags), uint64(uint32(word(1024)))},
	} {
		if row.got != row.want {
			t.Errorf("%s: %#x, want %#x", name, row.got, row.want)
		}
	}
	for code, lengths := range map[HVMCode][]int{HVMHeader: nil, HVMCPU: {1016, 1024, 1032}, HVMLAPIC: {24, 32}, HVMMTRR: {240},
		HVMVMCEVCPU: {24, 32}, HVMTSCAdjust: {8}, HVMCPUXSave: {600, 856}, HVMCPUMSR: {8}} {
		for n := range 1100 {
			e := HVMEntry{Code: code, Data: make([]byte, n)}
			_, err := e.View()
			want := slices.Contains(lengths, n) || code == HVMCPUXSave && n >= 600
			if (err == nil) != want {
				t.Errorf("%v of %d octets: %v", code, n, err)
			}
		}
	}
	msrs := HVMMSRs{{Index: 0x48, Value: 1}, {Index: 0xc0000103, Value: 2}}
	e = HVMEntry{Code: HVMCPUMSR, Data: msrs.Append(nil)}
	if v, err := e.View(); err != nil || !slices.Equal(*v.(*HVMMSRs), msrs) {
		t.Errorf("CPU_MSR: %v, %v", v, err)
	}
}

func TestHVMParams(t *testing.T) {
	for release, want := range map[string][]uint64{
		"4.6":  {1, 5, 6, 27, 28, 29, 15, 17, 19, 9, 12, 4, 34, 32, 33, 36},
		"4.9":  {1, 5, 6, 27, 28, 29, 37, 17, 19, 9, 12, 4, 34, 32, 33, 36},
		"4.13": {1, 5, 6, 27, 28, 29, 37, 17, 19, 9, 12, 4, 34, 32, 33, 36, 38},
		"4.17": {1, 5, 6, 27, 28, 29, 37, 17, 19, 9, 12, 34, 32, 33, 36, 38},
	} {
		r, err := guest.ParseRelease(release)
		if err != nil {
			t.Fatal(err)
		}
		got := SavedHVMParams(r)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", release, got, want)
		}
		for _, i := range got {
			if !HVMParamSettable(r, i) {
				t.Errorf("%s: %s is saved and cannot be set", release, HVMParamName(i))
			}
		}
	}
	r417, r411 := guest.Release{Major: 4, Minor: 17}, guest.Release{Major: 4, Minor: 11}
	for i, want := range map[uint64]bool{0: true, 4: false, 13: false, 20: false, 25: false, 26: false, 27: true, 30: false, 35: true, 38: true, 39: false} {
		if HVMParamSettable(r417, i) != want {
			t.Errorf("4.17 and %s: %v", HVMParamName(i), !want)
		}
		if !HVMParamSettable(r411, i) && i < 39 {
			t.Errorf("4.11 refuses %s", HVMParamName(i))
		}
	}
	if HVMParamName(38) != "MCA_CAP" || HVMParamName(3) != "HVM parameter 3" || HVMParamName(1<<40) != "HVM parameter 1099511627776" {
		t.Error("names")
	}
}

func FuzzHVMContext(f *testing.F) {
	f.Add(slices.Concat(hvmHead, hvmEntry(HVMCPU, 0, make([]byte, 1032)), hvmEntry(HVMEnd, 0, nil)))
	f.Add(slices.Concat(hvmHead, hvmEntry(HVMCPUMSR, 0, HVMMSRs{{Index: 1}}.Append(nil)), hvmEntry(HVMEnd, 0, nil)))
	f.Fuzz(func(t *testing.T, blob []byte) {
		entries, err := ParseHVMContext(blob)
		if err != nil {
			return
		}
		if again := AppendHVMContext(nil, entries); !bytes.Equal(again, blob) {
			t.Errorf("accepts % x, writes % x", blob, again)
		}
		_ = CheckHVMContext(entries)
		for _, e := range entries {
			v, err := e.View()
			if b, ok := v.(Body); ok && err == nil && e.checkLength() == nil && decode(v, e.Data, record.Strict) == nil && !bytes.Equal(b.Append(nil), e.Data) {
				t.Errorf("%v: accepts % x, writes % x", e.Code, e.Data, b.Append(nil))
			}
		}
	})
}
