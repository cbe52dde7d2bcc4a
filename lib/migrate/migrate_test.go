package migrate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"xenferry/lib/guest"
)

// The words are xl's to the octet.
func TestWords(t *testing.T) {
	for w, size := range map[word]int{banner: 54, ready: 34, goOn: 44, report: 39} {
		if len(w) != size {
			t.Errorf("%q has %d octets, want %d", w, len(w), size)
		}
		in := strings.NewReader(string(w) + "!")
		if err := w.expect(iotest.OneByteReader(in)); err != nil || in.Len() != 1 {
			t.Errorf("%q: %v, %d octets left", w, err, in.Len())
		}
		// Who says something else may wait for ever then: the first octet tells.
		r, out := io.Pipe()
		go func() { _, _ = out.Write([]byte("hello\n")) }()
		if err := w.expect(r); err == nil {
			t.Errorf("%q was taken for something else", w)
		}
		if err := w.expect(strings.NewReader(string(w[:9]))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	}
}

// What a domain is made of survives its configuration; PV domains are of 64 bits until their stream tells.
func TestConfig(t *testing.T) {
	for _, kind := range []guest.Kind{guest.PV64, guest.PV32, guest.HVM, guest.PVH} {
		d := guest.Info{Name: "g", UUID: uuid.New(), Kind: kind, MaxVCPU: 3, MaxPages: 4096}
		b, err := Config(d)
		if err != nil {
			t.Fatal(err)
		}
		if kind == guest.PV32 {
			kind = guest.PV64
		}
		want := guest.Spec{Name: "g", UUID: d.UUID, Kind: kind, VCPUs: 4, MaxPages: 4096}
		if got, err := SpecOf(b); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"c_info": {"type": "hvm"}}`, `{"c_info": {"type": "vm"}, "b_info": {"max_vcpus": 1, "max_memkb": 1}}`,
		`{"c_info": {"type": "pv", "uuid": "x"}, "b_info": {"max_vcpus": 1, "max_memkb": 1}}`,
		`{"c_info": {"type": "pv"}, "b_info": {"max_vcpus": 1, "max_memkb": 18446744073709551615}}`} {
		if s, err := SpecOf([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, s)
		}
	}
}

// What a toolstack makes is not left out unsaid.
func TestWithoutDevices(t *testing.T) {
	rest := `"c_info": {"type": "%s"}, "b_info": {"max_vcpus": 1, "max_memkb": 8192}`
	for text, ok := range map[string]bool{
		`{` + fmt.Sprintf(rest, "pvh") + `}`:                                 true,
		`{` + fmt.Sprintf(rest, "pv") + `, "disks": []}`:                     true,
		`{` + fmt.Sprintf(rest, "pv") + `, "disks": [{"vdev": "xvda"}]}`:     false,
		`{` + fmt.Sprintf(rest, "pvh") + `, "nics": [{"bridge": "xenbr0"}]}`: false,
		`{` + fmt.Sprintf(rest, "hvm") + `}`:                                 false,
	} {
		if err := withoutDevices([]byte(text)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A journal tells the last step that was written whole, to one at a time.
func TestJournal(t *testing.T) {
	side := Side{Folder: t.TempDir(), Lock: "lock-1", Log: zerolog.Nop()}
	r := Record{UUID: uuid.New(), Domain: 7, Name: "g", Peer: "ssh:there"}
	if err := side.begin(sourceSide, Sending, r); err != nil {
		t.Fatal(err)
	}
	if _, err := openJournal(side.Folder, sourceSide, r.UUID, false, 0); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("opened twice: %v", err)
	}
	if err := side.step(Given, nil); err != nil {
		t.Fatal(err)
	}
	name := side.journal.file.Name()
	side.end(false)

	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"step":"runn`); err != nil { // the machine lost power
		t.Fatal(err)
	}
	_ = f.Close()
	ids, err := Sources(side.Folder)
	if err != nil || len(ids) != 1 || ids[0] != r.UUID {
		t.Errorf("%v, %v", ids, err)
	}
	j, err := openJournal(side.Folder, sourceSide, r.UUID, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	if l := j.last; l.Step != Given || l.Domain != 7 || l.Name != "g" || l.Peer != r.Peer || l.Lock != "lock-1" {
		t.Errorf("%+v", l)
	}
	if err := j.write(Refused, nil); err != nil {
		t.Fatal(err)
	}
	_ = j.close()
	if j, err = openJournal(side.Folder, sourceSide, r.UUID, false, 0); err != nil || j.last.Step != Refused {
		t.Fatalf("%+v, %v", j, err)
	}
	if err := j.remove(); err != nil {
		t.Error(err)
	}
	if _, err := openJournal(side.Folder, sourceSide, r.UUID, false, 0); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
