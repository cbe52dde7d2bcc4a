package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash"
	"hash/fnv"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"xenferry/lib/record"
	"xenferry/lib/testkit"
	"xenferry/lib/xlstream"
)

// inputs is what Wrap takes, with the parts that unwrap took off.
func (p *parts) inputs(xl bool) Inputs {
	in := Inputs{
		Emulator: func() (io.ReadCloser, uint64, error) {
			return io.NopCloser(&p.emulator), uint64(p.emulator.Len()), nil
		},
		Xenstore: func() ([]xlstream.KeyValue, error) { return xlstream.ParsePairs(p.xenstore.Bytes()) },
	}
	if xl {
		in.XL = &xlstream.XLHeader{StreamV2: true}
		if p.config.opened > 0 {
			in.XL.Config, in.XL.JSON = p.config.Bytes(), json.Valid(p.config.Bytes())
		}
	}
	return in
}

// What was unwrapped is wrapped into the same octets, but where the stream had what no writer of today writes.
func TestWrapVectors(t *testing.T) {
	elsewise := map[string]bool{"legacy": true, "tail": true} // what no writer of today writes
	same := 0
	for _, format := range []string{testkit.LibXL, testkit.XL} {
		for _, v := range vectors(t, format) {
			var p parts
			if v.Strict.Kind != nil || elsewise[v.Name] {
				continue
			}
			if err := Unwrap(bytes.NewReader(v.Data), p.outputs()); err != nil {
				continue // a stream with checkpoints
			}
			var out bytes.Buffer
			in := bytes.NewReader(append(bytes.Clone(p.image.Bytes()), "behind"...))
			if err := Wrap(iotest.HalfReader(in), &out, p.inputs(format == testkit.XL)); err != nil || in.Len() != len("behind") {
				t.Errorf("%s/%s: %v, %d octets left", format, v.Name, err, in.Len())
			}
			if !bytes.Equal(out.Bytes(), v.Data) {
				t.Errorf("%s/%s: %d octets, want %d, or other ones", format, v.Name, out.Len(), len(v.Data))
			}
			same++
		}
	}
	if same < 4 {
		t.Errorf("only %d streams compared", same)
	}
}

// Whatever is wrapped around, unwrap returns.
func TestWrapRapid(t *testing.T) {
	var images [][]byte
	for _, v := range vectors(t, testkit.LibXC) {
		if v.Strict.Kind == nil && !strings.HasPrefix(v.Name, "checkpoint") && !bytes.Contains(v.Data[24:40], []byte{1, 0, 0, 0, 12}) {
			images = append(images, v.Data)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		image := rapid.SampledFrom(images).Draw(t, "image")
		var p parts
		p.emulator.WriteString(rapid.String().Draw(t, "emulator"))
		text := rapid.StringMatching(`[a-z0-9.]*`)
		for key, value := range rapid.MapOf(rapid.StringMatching(`physmap/[0-9a-f]+/[a-z_]+`), text).Draw(t, "keys") {
			p.xenstore.Write(xlstream.AppendPairs(nil, []xlstream.KeyValue{{Key: key, Value: value}}))
		}
		xl := rapid.Bool().Draw(t, "xl")
		if xl && rapid.Bool().Draw(t, "config") {
			p.config.opened = 1
			p.config.WriteString(rapid.StringMatching(`[ -~\n]*`).Draw(t, "text"))
		}
		emulator, xenstore := p.emulator.String(), p.xenstore.String()
		var out bytes.Buffer
		if err := Wrap(bytes.NewReader(image), &out, p.inputs(xl)); err != nil {
			t.Fatal(err)
		}
		var back parts
		if err := Unwrap(&out, back.outputs()); err != nil || out.Len() != 0 {
			t.Fatal(err)
		}
		if !bytes.Equal(back.image.Bytes(), image) || back.emulator.String() != emulator || back.xenstore.String() != xenstore ||
			back.config.String() != p.config.String() {
			t.Fatalf("came back as %+v", &back)
		}
	})
}

// An emulator around a PV domain, and a stream that is wrapped already, are refused; of the latter nothing is written.
func TestWrapRefuses(t *testing.T) {
	in := Inputs{Emulator: func() (io.ReadCloser, uint64, error) { return io.NopCloser(strings.NewReader("Q")), 1, nil }}
	for _, v := range vectors(t, testkit.LibXC) {
		pv := len(v.Data) > 40 && v.Data[24] == 1
		if err := Wrap(bytes.NewReader(v.Data), io.Discard, in); v.Lenient.Kind == nil && (err == nil) == pv && !strings.HasPrefix(v.Name, "checkpoint") {
			t.Errorf("%s: PV %v: %v", v.Name, pv, err)
		}
	}
	for _, v := range vectors(t, testkit.XL) {
		var out bytes.Buffer
		if err := Wrap(bytes.NewReader(v.Data), &out, Inputs{}); !record.IsInvalid(err) || out.Len() > 0 {
			t.Errorf("%s: %v, %d octets written", v.Name, err, out.Len())
		}
	}
	full := errors.New("no space")
	image := vectors(t, testkit.LibXC)[0].Data
	if err := Wrap(bytes.NewReader(image), &failing{20, full}, Inputs{}); !errors.Is(err, full) || record.IsInvalid(err) {
		t.Error(err)
	}
}

// Files that stock xl wrote are unwrapped and wrapped again into the same octets.
func TestWrapCaptures(t *testing.T) {
	for _, name := range testkit.Captures {
		t.Run(name, func(t *testing.T) {
			testkit.Capture(t, name) // what skips the test must not be called by the goroutine alone
			was, now := fnv.New128a(), fnv.New128a()
			image, w := io.Pipe()
			var p parts
			done := make(chan error, 1)
			ready := make(chan struct{}) // the configuration is known
			out := p.outputs()
			out.Image = w
			out.Config = func() (io.WriteCloser, error) { return closing{&p.config, ready}, nil }
			go func() {
				err := unwrapCapture(t, name, was, out)
				_ = w.CloseWithError(err)
				done <- err
			}()
			<-ready
			p.config.opened = 1
			in := p.inputs(true)
			ended := func() error { return <-done }
			in.Xenstore = func() ([]xlstream.KeyValue, error) {
				if err := ended(); err != nil {
					return nil, err
				}
				return xlstream.ParsePairs(p.xenstore.Bytes())
			}
			if err := Wrap(image, now, in); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(was.Sum(nil), now.Sum(nil)) {
				t.Error("the octets are not those that stock xl wrote")
			}
		})
	}
}

// closing tells when a part is complete.
type closing struct {
	io.Writer
	closed chan struct{}
}

func (c closing) Close() error {
	close(c.closed)
	return nil
}

// unwrapCapture unwraps a capture, and adds its octets through END to sum.
func unwrapCapture(t *testing.T, name string, sum hash.Hash, out Outputs) error {
	file, err := os.Open(testkit.Capture(t, name))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	in, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer in.Close()
	return Unwrap(io.TeeReader(in, sum), out)
}
