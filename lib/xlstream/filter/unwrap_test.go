package filter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"xenferry/lib/record"
	"xenferry/lib/testkit"
	"xenferry/lib/xcstream"
)

// part is an output in memory that counts how often it was opened.
type part struct {
	bytes.Buffer
	opened int
}

func (p *part) open() (io.WriteCloser, error) {
	p.opened++
	p.Reset()
	return p, nil
}

func (p *part) Close() error { return nil }

// parts are all outputs of an Unwrap.
type parts struct{ image, config, emulator, xenstore part }

func (p *parts) outputs() Outputs {
	return Outputs{Image: &p.image, Config: p.config.open, Emulator: p.emulator.open, Xenstore: p.xenstore.open}
}

func vectors(t testing.TB, format string) []testkit.Vector {
	t.Helper()
	vs, err := testkit.Vectors(format)
	if err != nil {
		t.Fatal(err)
	}
	return vs
}

// The filter ends as lenient reading does, takes nothing behind the end, and passes the libxc stream on as it is.
func TestUnwrapVectors(t *testing.T) {
	for _, format := range []string{testkit.LibXL, testkit.XL} {
		for _, v := range vectors(t, format) {
			var p parts
			in := bytes.NewReader(append(bytes.Clone(v.Data), "behind"...))
			if v.Lenient.Kind == record.ErrTruncated {
				in.Reset(v.Data)
			}
			err := Unwrap(in, p.outputs())
			if err := v.Lenient.Check(err); err != nil {
				t.Errorf("%s/%s: %v", format, v.Name, err)
			}
			if err == nil && in.Len() != len("behind") {
				t.Errorf("%s/%s: %d octets behind the end are left, want 6", format, v.Name, in.Len())
			}
			if err == nil && !bytes.Contains(v.Data, p.image.Bytes()) {
				t.Errorf("%s/%s: the image is not the one in the stream", format, v.Name)
			}
		}
	}
}

// What unwraps passes, octet for octet, and nothing behind its end is taken.
func TestPass(t *testing.T) {
	passed := 0
	for _, v := range vectors(t, testkit.LibXL) {
		if v.Lenient.Kind != nil {
			continue
		}
		var out bytes.Buffer
		in := bytes.NewReader(append(bytes.Clone(v.Data), "behind"...))
		if err := Pass(iotest.HalfReader(in), &out, 0); err != nil || !bytes.Equal(out.Bytes(), v.Data) || in.Len() != len("behind") {
			t.Errorf("%s: %v, %d octets of %d passed, %d left", v.Name, err, out.Len(), len(v.Data), in.Len())
		}
		if err := Pass(bytes.NewReader(v.Data[:len(v.Data)-1]), io.Discard, 0); !errors.Is(err, record.ErrTruncated) {
			t.Errorf("%s, cut off: %v", v.Name, err)
		}
		passed++
	}
	if passed < 3 {
		t.Errorf("only %d streams passed", passed)
	}
}

// Alone, a libxc stream passes; only what is wrong within bodies does not stop the filter, which does not look there.
func TestUnwrapLibxc(t *testing.T) {
	for _, v := range vectors(t, testkit.LibXC) {
		var p parts
		in := bytes.NewReader(append(bytes.Clone(v.Data), "behind"...))
		err := Unwrap(iotest.HalfReader(in), p.outputs())
		switch {
		case strings.HasPrefix(v.Name, "checkpoint"):
			if !errors.Is(err, record.ErrOrder) {
				t.Errorf("%s: %v", v.Name, err)
			}
		case v.Lenient.Kind == nil && (err != nil || !bytes.Equal(p.image.Bytes(), v.Data) || in.Len() != len("behind")):
			t.Errorf("%s: %v, %d octets of %d passed", v.Name, err, p.image.Len(), len(v.Data))
		case v.Lenient.Kind != nil && err == nil:
			t.Errorf("%s: passed though it is incomplete", v.Name)
		}
	}
}

func TestUnwrapParts(t *testing.T) {
	for _, v := range vectors(t, testkit.LibXL) {
		var p parts
		switch err := Unwrap(bytes.NewReader(v.Data), p.outputs()); v.Name {
		case "hvm":
			if err != nil || p.emulator.String() != strings.Repeat("Q", 13) || p.xenstore.String() != "physmap/f0/start_addr\x00f0000000\x00" || p.config.opened != 0 {
				t.Errorf("%v: emulator %q, xenstore %q, config opened %d", err, &p.emulator, &p.xenstore, p.config.opened)
			}
		case "emulator-twice":
			if err != nil || p.emulator.opened != 2 || p.emulator.Len() != 13 {
				t.Errorf("%v: emulator opened %d, %d octets", err, p.emulator.opened, p.emulator.Len())
			}
		}
		var image bytes.Buffer // nothing asked for: the same is checked
		if err := v.Lenient.Check(Unwrap(bytes.NewReader(v.Data), Outputs{Image: &image})); err != nil {
			t.Errorf("%s, no outputs: %v", v.Name, err)
		}
	}
	for _, v := range vectors(t, testkit.XL) {
		var p parts
		if v.Name == "pvh" || v.Name == "tail" {
			if err := Unwrap(bytes.NewReader(v.Data), p.outputs()); err != nil || p.config.String() != `{"c_info": {"type": "pvh"}}` {
				t.Errorf("%s: %v, config %q", v.Name, err, &p.config)
			}
		}
	}
}

// An output that fails ends it all with its own error, which is none of the stream.
func TestUnwrapOutputFails(t *testing.T) {
	full := errors.New("no space")
	for _, v := range vectors(t, testkit.LibXL) {
		if v.Name != "hvm" {
			continue
		}
		for n := range v.Data {
			var p parts
			out := p.outputs()
			out.Image = &failing{n, full}
			if err := Unwrap(bytes.NewReader(v.Data), out); err != nil && (!errors.Is(err, full) || record.IsInvalid(err)) {
				t.Fatalf("after %d octets: %v", n, err)
			}
		}
		out := Outputs{Image: io.Discard, Emulator: func() (io.WriteCloser, error) { return nil, full }}
		if err := Unwrap(bytes.NewReader(v.Data), out); !errors.Is(err, full) {
			t.Error(err)
		}
	}
}

// failing takes n octets.
type failing struct {
	n   int
	err error
}

func (f *failing) Write(p []byte) (int, error) {
	if len(p) > f.n {
		n := f.n
		f.n = 0
		return n, f.err
	}
	f.n -= len(p)
	return len(p), nil
}

// What stock Xen wrote: the layers come off, and xl's GO behind a migration is left where it is.
func TestUnwrapCaptures(t *testing.T) {
	for _, name := range testkit.Captures {
		t.Run(name, func(t *testing.T) {
			file, err := os.Open(testkit.Capture(t, name))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = file.Close() }()
			in, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			var p parts
			image := newImage()
			out := p.outputs()
			out.Image = image
			if err := Unwrap(in, out); err != nil {
				t.Fatal(err)
			}
			if err := image.close(); err != nil {
				t.Errorf("strict reading of the image: %v", err)
			}
			rest, err := io.ReadAll(in)
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			if strings.Contains(name, "xlmigrate") {
				want = "domain is yours, you are cleared to unpause\x00"
			}
			if string(rest) != want {
				t.Errorf("behind END: %q, want %q", rest, want)
			}
			if !bytes.HasPrefix(p.config.Bytes(), []byte("{")) {
				t.Errorf("configuration: %q", &p.config)
			}
			if hvm := strings.Contains(name, "hvm"); (p.emulator.Len() > 0) != hvm {
				t.Errorf("emulator's state: %d octets", p.emulator.Len())
			}
			t.Logf("image of %d octets, %d entries of HVM context", image.n, image.entries)
		})
	}
}

// image reads what is written to it strictly, in step with the writing.
type image struct {
	*io.PipeWriter
	n       int64
	entries int
	done    chan error
}

func newImage() *image {
	r, w := io.Pipe()
	i := &image{PipeWriter: w, done: make(chan error, 1)}
	go func() {
		err := i.read(xcstream.NewReader(r, record.Strict, 0))
		_ = r.CloseWithError(err)
		i.done <- err
	}()
	return i
}

func (i *image) Write(p []byte) (int, error) {
	n, err := i.PipeWriter.Write(p)
	i.n += int64(n)
	return n, err
}

func (i *image) close() error { return errors.Join(i.PipeWriter.Close(), <-i.done) }

func (i *image) read(r *xcstream.Reader) error {
	if err := r.Headers(); err != nil {
		return err
	}
	order := xcstream.NewOrder(record.Strict, r.Image.Version, r.Domain.Type)
	for {
		t, _, err := r.Next()
		if err != nil {
			return err
		}
		if _, err := order.Next(t); err != nil {
			return r.Wrap(err)
		}
		if t == xcstream.TypePageData {
			if _, err = r.PageData(); err == nil {
				err = r.Skip()
			}
		} else {
			err = i.record(r, order, t)
		}
		if err != nil || t == xcstream.TypeEnd {
			return r.Wrap(err)
		}
	}
}

func (i *image) record(r *xcstream.Reader, order *xcstream.Order, t xcstream.Type) error {
	v := t.New()
	if err := r.Decode(v); err != nil {
		return err
	}
	switch v := v.(type) {
	case *xcstream.VCPU:
		return errors.Join(v.Check(t, 8), order.VCPU(t, v.ID, len(v.Context)))
	case *xcstream.P2MFrames:
		return v.Check(8)
	case *xcstream.HVMParams:
		for _, p := range *v {
			if !xcstream.HVMParamSettable(r.Domain.Xen, p.Index) {
				return errors.New(xcstream.HVMParamName(p.Index) + " is not of this release")
			}
		}
	case *xcstream.Raw:
		entries, err := xcstream.ParseHVMContext(*v)
		if err != nil {
			return err
		}
		i.entries = len(entries)
		for _, e := range entries {
			v, err := e.View()
			if err := errors.Join(err, e.LoadableBy(r.Domain.Xen)); err != nil {
				return err
			}
			if m, ok := v.(*xcstream.HVMMTRRData); ok && (m.PAT != 0x0007040600070406 || m.Cap != 0x508) {
				return fmt.Errorf("PAT %#x, MTRR capabilities %#x: not those of every Xen guest", m.PAT, m.Cap)
			}
			if c, ok := v.(*xcstream.HVMCPUData); ok && (c.CR0>>31 != 1 || c.EFER&0x500 != 0x500 || c.TSC == 0) {
				return fmt.Errorf("cr0 %#x, efer %#x, tsc %#x: not of a running 64-bit kernel", c.CR0, c.EFER, c.TSC)
			}
		}
		return xcstream.CheckHVMContext(entries)
	}
	return nil
}

func FuzzUnwrap(f *testing.F) {
	for _, format := range []string{testkit.LibXC, testkit.LibXL, testkit.XL} {
		for _, v := range vectors(f, format) {
			f.Add(testkit.Squeeze(v.Data))
		}
	}
	f.Fuzz(func(t *testing.T, squeezed []byte) {
		in := testkit.Stretch(squeezed)
		var p parts
		src := bytes.NewReader(in)
		if err := Unwrap(src, p.outputs()); err != nil {
			var at *record.Error
			if !errors.As(err, &at) || !record.IsInvalid(err) {
				t.Errorf("an error without place or kind: %v", err)
			}
			return
		}
		if !bytes.Contains(in[:len(in)-src.Len()], p.image.Bytes()) {
			t.Errorf("% x: the image is not what was in it", in)
		}
	})
}
