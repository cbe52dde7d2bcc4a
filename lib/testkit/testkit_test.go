package testkit

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestParseHex(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       string // hex, or what the error says
		bad        bool
	}{
		{"words", "00 0102\tff", "000102ff", false},
		{"comments", "; all\n01;ff\n02 ; ff\n", "0102", false},
		{"text", `"a;\x00\"" 01`, "613b002201", false},
		{"repeated", `00*3 0102*2 "ab"*2;x`, "000000" + "01020102" + "61626162", false},
		{"not at all", "ff*0", "", false},
		{"odd", "01\n012", "line 2", true},
		{"not hex", "zz", "line 1", true},
		{"open text", `"a`, "does not end", true},
		{"not a number", "00*x", "repetitions", true},
		{"too many", "00*99999999", "repetitions", true},
		{"too many in all", "00*60000000\n00*60000000", "line 2", true},
	} {
		got, err := ParseHex(row.text)
		switch {
		case row.bad && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%s: error %v, want %q in it", row.name, err, row.want)
		case !row.bad && (err != nil || hex.EncodeToString(got) != row.want):
			t.Errorf("%s: %x, %v, want %s", row.name, got, err, row.want)
		}
	}
}

func FuzzParseHex(f *testing.F) {
	f.Add(`01 00*3 "text\n"*2 ; comment`)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<10 || strings.Count(text, "*") > 2 {
			return // repetitions make this a test of memory otherwise
		}
		out, err := ParseHex(text)
		if err != nil {
			return
		}
		again, err := ParseHex(hex.EncodeToString(out))
		if err != nil || !bytes.Equal(out, again) {
			t.Errorf("%q: %x is read back as %x, %v", text, out, again, err)
		}
	})
}

func TestVectors(t *testing.T) {
	for _, format := range []string{LibXC, LibXL, XL} {
		vs, err := Vectors(format)
		if err != nil {
			t.Error(err)
		}
		for _, v := range vs {
			if v.Strict.Kind == nil && v.Lenient.Kind != nil {
				t.Errorf("%s/%s: strict takes what lenient does not", format, v.Name)
			}
		}
	}
}

func TestSqueeze(t *testing.T) {
	for _, text := range []string{"", "00", "00*15", "00*16", "f5", "f5*3 00", "5a*4096 01", "5a*65535", "5a*65536", "5a*200000 5b*2", "f5*70000"} {
		b, err := ParseHex(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := Stretch(Squeeze(b)); !bytes.Equal(got, b) {
			t.Errorf("%s: %d octets, want %d", text, len(got), len(b))
		}
	}
	if n := len(Squeeze(bytes.Repeat([]byte{7}, 4096))); n != 4 {
		t.Errorf("a page is squeezed to %d octets", n)
	}
}
