package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/testkit"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
	"xenferry/lib/xlstream/filter"
)

// TestCompare: what may differ does not count, and whatever else differs is found and named.
func TestCompare(t *testing.T) {
	stream := make([]byte, headers)
	tsc := len(stream) + record.HeaderSize
	stream = record.AppendRecord(stream, uint32(xcstream.TypeX86TSCInfo), func(b []byte) []byte { return append(b, make([]byte, 24)...) })
	page := len(stream) + record.HeaderSize + 8 + 8
	stream = record.AppendRecord(stream, uint32(xcstream.TypePageData), func(b []byte) []byte {
		b = append(b, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0)
		return append(b, make([]byte, guest.PageSize)...)
	})
	context := len(stream) + record.HeaderSize
	stream = record.AppendRecord(stream, uint32(xcstream.TypeHVMContext), func(b []byte) []byte {
		return xcstream.AppendHVMContext(b, []xcstream.HVMEntry{
			{Code: xcstream.HVMHeader, Data: xcstream.HVMHeaderData{}.Append(nil)},
			{Code: xcstream.HVMPIC, Instance: 1, Data: make([]byte, 8)},
			{Code: xcstream.HVMEnd},
		})
	})
	stream = record.AppendRecord(stream, uint32(xcstream.TypeVerify), func(b []byte) []byte { return append(b, 1, 2, 3, 4) })
	end := len(stream)
	stream = record.AppendRecord(stream, uint32(xcstream.TypeEnd), func(b []byte) []byte { return b })

	for _, row := range []struct {
		name   string
		change func(b []byte) []byte
		want   string
	}{
		{"nothing", func(b []byte) []byte { return b }, ""},
		{"nsec", func(b []byte) []byte { b[tsc+8]++; return b }, ""},
		{"khz", func(b []byte) []byte { b[tsc+4]++; return b }, "X86_TSC_INFO, octets 4 to 4"},
		{"a page", func(b []byte) []byte { b[page+8]++; return b }, "PAGE_DATA, PFN 0x7, octets 8 to 8"},
		{"an HVM context's entry", func(b []byte) []byte { b[context+24+8+8+3]++; return b }, "HVM_CONTEXT/PIC 1, octets 3 to 3"},
		{"padding", func(b []byte) []byte { b[end-1]++; return b }, "padding, octets 3 to 3"},
		{"headers", func(b []byte) []byte { b[8]++; return b }, "headers, octets 8 to 8"},
		{"another type", func(b []byte) []byte { b[end]++; return b }, "END of 0 octets, PAGE_DATA"},
		{"a record more", func(b []byte) []byte { return append(b, make([]byte, 8)...) }, "octets, "},
		{"cut off", func(b []byte) []byte { return b[:len(b)-4] }, "cut off"},
		{"a length too great", func(b []byte) []byte { binary.LittleEndian.PutUint32(b[end+4:], 1<<31); return b }, "is of 2147483648 octets"},
	} {
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		for name, content := range map[string][]byte{a: stream, b: row.change(append([]byte(nil), stream...))} {
			if err := os.WriteFile(name, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := compare(a, b)
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.want)
		}
	}
}

// TestCompareLayers: in a file with an emulator's state every octet counts but those of that state and of the guest's records,
// and of the latter the order does.
func TestCompareLayers(t *testing.T) {
	const config, state = `{"c_info": {}}`, "what QEMU says of itself"
	vectors, err := testkit.Vectors(testkit.LibXC)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(vectors, func(v testkit.Vector) bool { return v.Name == "hvm" })
	if at < 0 {
		t.Fatal("no vector of an HVM domain")
	}
	image := vectors[at].Data
	var out bytes.Buffer
	err = filter.Wrap(bytes.NewReader(image), &out, filter.Inputs{
		XL: &xlstream.XLHeader{JSON: true, StreamV2: true, Config: []byte(config)},
		Emulator: func() (io.ReadCloser, uint64, error) {
			return io.NopCloser(strings.NewReader(state)), uint64(len(state)), nil
		},
		Xenstore: func() ([]xlstream.KeyValue, error) {
			return []xlstream.KeyValue{{Key: "physmap/0/name", Value: "vga"}}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write := func(name string, content []byte) {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := out.Bytes()
	write(a, file)
	begin := bytes.Index(file, image)
	guest := [2]int{begin + headers, begin + len(image)}
	emulator := [2]int{bytes.Index(file, []byte(state)), bytes.Index(file, []byte(state)) + len(state)}
	same := 0
	for i := range file {
		changed := bytes.Clone(file)
		changed[i] ^= 1
		write(b, changed)
		own := i >= guest[0] && i < guest[1] || i >= emulator[0] && i < emulator[1]
		switch err := compareLayers(a, b); {
		case err == nil && !own:
			t.Errorf("octet %d of %d makes no difference", i, len(file))
		case err == nil:
			same++
		}
	}
	if same < len(state) {
		t.Errorf("only %d octets make no difference", same)
	}
	write(b, file[:len(file)-1])
	if err := compareLayers(a, b); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Error(err)
	}
}
