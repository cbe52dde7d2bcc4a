package legacy_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"runtime/debug"
	"testing"
	"unicode/utf8"

	"xenferry/lib/guest"
	"xenferry/lib/legacy"
	"xenferry/lib/legacy/legacytest"
	"xenferry/lib/record"
	"xenferry/lib/verify"
	"xenferry/lib/xcstream"
)

// FuzzConvert: no input whatever makes a conversion crash or hang. Errors say where in the input. What is converted
// whole is the same when there was something to salvage to be looked for.
func FuzzConvert(f *testing.F) {
	for seed := range uint64(40) {
		for i, img := range []legacytest.Image{legacytest.Genuine(seed), legacytest.Odd(seed), legacytest.Broken(seed)} {
			if len(img.Data) < 12<<10 {
				f.Add(img.Data, byte(seed)<<2|byte(i))
			}
		}
	}
	f.Add(unhex(f, example), byte(0))
	data, _ := remus(legacy.Width64, 2)
	f.Add(data, byte(8))
	f.Fuzz(func(t *testing.T, data []byte, how byte) {
		opts := legacy.Options{SkipQEMU: how&1 != 0, Checkpoints: how&8 != 0}
		if how&16 != 0 {
			opts.Layout = legacy.Layout{Width: legacy.Width(4 + how>>5&1*4), Domain: xcstream.DomainType(1 + how>>6&1)}
		}
		c := legacy.Conversion{Format: legacy.Format(1 + how>>1&1), Version: 2 + uint32(how>>2&1), Last: opts.Checkpoints,
			Spool: newSpool}
		var out, salvaged bytes.Buffer
		result, err := legacy.Convert(&out, legacy.NewReader(bytes.NewReader(data), opts), c)
		var at *record.Error
		switch {
		case err != nil && !errors.As(err, &at):
			t.Fatalf("no offset: %v", err)
		case err != nil && (at.Offset > uint64(len(data)) || !record.IsInvalid(err) && !errors.Is(err, legacy.ErrUnsupported)):
			t.Fatal(err)
		case result.Input > uint64(len(data)) || result.Output != uint64(out.Len()):
			t.Fatalf("%+v of %d octets, %d came out", result, len(data), out.Len())
		}
		c.Salvage = true
		if _, failed := legacy.Convert(&salvaged, legacy.NewReader(bytes.NewReader(data), opts), c); (failed == nil) != (err == nil) && !c.Last {
			t.Fatalf("converted: %v, salvaged: %v", err, failed)
		}
		if err == nil && !bytes.Equal(out.Bytes(), salvaged.Bytes()) {
			t.Fatal("salvaging makes a difference")
		}
		if _, err := verify.Verify(bytes.NewReader(out.Bytes()), verify.Options{AllowTrailing: true}); err != nil {
			t.Fatal(err)
		}
	})
}

// endless gives out head, then part again and again, up to size octets in all. It watches the memory in use.
type endless struct {
	head, part []byte
	at, size   int
	watch      *watch
}

func (e *endless) Read(p []byte) (int, error) {
	if e.at >= e.size {
		return 0, io.EOF
	}
	e.watch.look(e.at)
	src := e.head
	if e.at >= len(e.head) {
		src = e.part[(e.at-len(e.head))%len(e.part):]
	} else {
		src = src[e.at:]
	}
	n := copy(p, src)
	e.at += n
	return n, nil
}

// watch keeps the most memory in use that it sees.
type watch struct {
	next int
	most uint64
}

func (w *watch) look(at int) {
	if at < w.next {
		return
	}
	w.next = at + 4<<20
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	w.most = max(w.most, m.Sys-m.HeapReleased)
}

// noSpool is a spool that keeps nothing, where a file would take no memory.
type noSpool struct{}

func (noSpool) Writer() io.Writer      { return discard{io.Discard} }
func (noSpool) MoveTo(io.Writer) error { return nil }
func (noSpool) Reset() error           { return nil }

// discard is an output that is not io.Discard, so that nothing is left out for its sake.
type discard struct{ io.Writer }

// TestMemory: no input takes more than 64 MiB, whatever it claims and however long it is.
func TestMemory(t *testing.T) {
	size := 48 << 20
	if full() {
		size = 1 << 30
	}
	chunk := func(write func(w *legacytest.Writer)) []byte {
		w := &legacytest.Writer{Width: legacy.Width64}
		write(w)
		return w.B
	}
	start := chunk(func(w *legacytest.Writer) {
		w.Size(16)
		w.TSC(guest.TSC{Mode: 1})
		w.Batch([]uint64{0}, func(uint64, []byte) {})
	})
	tail := append(bytes.Clone(start), chunk(func(w *legacytest.Writer) { w.Chunk(legacy.ChunkEnd); w.MagicPFNs(1, 2, 3) })...)
	huge := []byte{0xff, 0xff, 0xff, 0x7f}
	pv := chunk(func(w *legacytest.Writer) {
		w.Size(1 << 32)
		w.ExtInfo(legacytest.Block{ID: "vcpu", Data: make([]byte, xcstream.VCPUContextSize64)})
	})
	page := chunk(func(w *legacytest.Writer) { w.Batch([]uint64{1, 0xf0000000, 2}, func(uint64, []byte) {}) })
	region := append(make([]byte, 24), append([]byte{2, 0, 0, 0}, "n\x00pads"...)...)
	for name, in := range map[string]struct{ head, part []byte }{
		"batches":        {start, page},
		"HVM parameters": {start, chunk(func(w *legacytest.Writer) { w.Param(legacy.ChunkIdentPT, 1) })},
		"vCPUs":          {start, chunk(func(w *legacytest.Writer) { w.VCPUInfo(63, 1<<64-1) })},
		"toolstack data": {append(bytes.Clone(start), append([]byte{0xee, 0xff, 0xff, 0xff}, huge...)...), []byte{1, 0, 0, 0}},
		"many toolstack data": {start, chunk(func(w *legacytest.Writer) {
			w.RawToolstack(append([]byte{1, 0, 0, 0, 255, 255, 0, 0}, bytes.Repeat(region, 65535)...))
		})},
		"P2M frame list":         {pv, make([]byte, 4096)},
		"extended info":          {append(chunk(func(w *legacytest.Writer) { w.Size(1); w.Octets(bytes.Repeat([]byte{255}, 12)) }), append([]byte("extv"), huge...)...), make([]byte, 4096)},
		"HVM context":            {append(bytes.Clone(tail), huge...), make([]byte, 4096)},
		"QEMU record":            {append(bytes.Clone(tail), append([]byte{0, 0, 0, 0}, append([]byte(legacy.QEMULibxl), huge...)...)...), make([]byte, 4096)},
		"QEMU record to the end": {append(bytes.Clone(tail), append([]byte{0, 0, 0, 0}, legacy.QEMUXend...)...), make([]byte, 4096)},
		"xl header":              {append(chunk(func(w *legacytest.Writer) { w.XLHeader(1, nil) })[:44], huge...), make([]byte, 4096)},
	} {
		for _, c := range []legacy.Conversion{{Format: legacy.LibXL}, {Format: legacy.LibXC}, {Format: legacy.LibXL, Salvage: true}} {
			c.Version, c.Spool = 3, func() (legacy.Spool, error) { return noSpool{}, nil }
			debug.FreeOSMemory()
			src := &endless{head: in.head, part: in.part, size: size, watch: &watch{}}
			r := legacy.NewReader(src, legacy.Options{})
			_, err := legacy.Convert(discard{io.Discard}, r, c)
			if r.Offset() < uint64(len(in.head)) {
				t.Errorf("%s: %v after %d octets: the input is not what it should be", name, err, r.Offset())
			}
			if src.watch.most > 64<<20 {
				t.Errorf("%s: %d MiB in use after %d MiB of input: %v", name, src.watch.most>>20, r.Offset()>>20, err)
			}
		}
	}
}

// FuzzParseToolstack: what is taken becomes strings that end with NUL, two or three pairs for each region, with no octet that
// is not text.
func FuzzParseToolstack(f *testing.F) {
	for _, w := range []legacy.Width{legacy.Width32, legacy.Width64} {
		img := &legacytest.Writer{Width: w}
		img.Toolstack([]legacytest.Region{{Phys: 1, Start: 2, Size: 3, Name: []byte("vga.ram\x00")}, {Phys: 4}}, [4]byte{1, 2, 3, 4})
		f.Add(img.B[8:], w == legacy.Width64)
		f.Add(img.B[8:len(img.B)-1], w == legacy.Width64)
	}
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, wide bool) {
		w := legacy.Width32
		if wide {
			w = legacy.Width64
		}
		text, err := legacy.ParseToolstack(data, w)
		switch {
		case err != nil && (text != nil || !record.IsInvalid(err)):
			t.Fatalf("%q, %v", text, err)
		case err != nil || len(text) == 0:
			return
		case text[len(text)-1] != 0 || !utf8.Valid(text) || !bytes.HasPrefix(text, []byte("physmap/")):
			t.Fatalf("%q", text)
		}
		if n, regions := bytes.Count(text, []byte{0}), int(binary.LittleEndian.Uint32(data[4:])); n < 4*regions {
			t.Fatalf("%d strings for %d regions", n, regions)
		}
	})
}
