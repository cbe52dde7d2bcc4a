package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// TestCompare: what may differ does not count, and whatever else differs is found and named.
func TestCompare(t *testing.T) {
	stream := make([]byte, headers)
	tsc := len(stream) + record.HeaderSize
	stream = record.AppendRecord(stream, uint32(xcstream.TypeX86TSCInfo), func(b []byte) []byte { return append(b, make([]byte, 24)...) })
	end := len(stream)
	stream = record.AppendRecord(stream, uint32(xcstream.TypeEnd), func(b []byte) []byte { return b })

	for _, row := range []struct {
		name   string
		change func(b []byte) []byte
		want   string
	}{
		{"nothing", func(b []byte) []byte { return b }, ""},
		{"nsec", func(b []byte) []byte { b[tsc+8]++; return b }, ""},
		{"khz", func(b []byte) []byte { b[tsc+4]++; return b }, "octet 12 of the X86_TSC_INFO"},
		{"headers", func(b []byte) []byte { b[8]++; return b }, "octet 8 of the headers"},
		{"another type", func(b []byte) []byte { b[end]++; return b }, "octet 0 of the END"},
		{"a record more", func(b []byte) []byte { return append(b, make([]byte, 8)...) }, "are equal"},
		{"cut off", func(b []byte) []byte { return b[:len(b)-4] }, "cut off"},
		{"a length too great", func(b []byte) []byte { binary.LittleEndian.PutUint32(b[end+4:], 1<<31); return b }, "cut off"},
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
