package filter

import (
	"errors"
	"fmt"
	"io"

	"xenferry/lib/record"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// Inputs is what Wrap puts around a libxc stream.
type Inputs struct {
	// XL is the header of xl in front; nil for a libxl stream alone.
	XL *xlstream.XLHeader

	// Emulator opens the emulator's state and says its length in octets; Xenstore returns its keys and values. Each is
	// called once the libxc stream has ended, as an emulator is stopped, and its state written, only after the guest has
	// suspended. Nil or nothing (length 0, no pairs) is for a domain without, and then no record is written.
	Emulator func() (src io.ReadCloser, size uint64, err error)
	Xenstore func() ([]xlstream.KeyValue, error)

	// Commit, unless nil, is asked at the instant before END is written. Its error ends the stream without one.
	Commit func() error
}

// Wrap reads a libxc stream from src, through END and not an octet more, and writes it to dst with the layers of libxl and
// xl around it, as xl save does. It judges record order and framing as stock restore does, and looks into no page; where
// dst is fast to, page data goes there by src's record.Copier. Nothing is written before src has shown that it begins
// with a libxc stream.
//
// Errors of the stream match record.IsInvalid and carry offset and record.
func Wrap(src io.Reader, dst io.Writer, in Inputs) error {
	p := record.NewPeeker(src)
	first, err := p.Peek(DetectSize)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	layer, err := Detect(first)
	if err == nil && layer != LayerLibxc {
		err = fmt.Errorf("%w: a stream of %v, which is wrapped already", record.ErrValue, layer)
	}
	if err != nil {
		return &record.Error{Record: "stream", Err: err}
	}
	w := xlstream.NewWriter(dst)
	if err := WriteHead(w, in.XL); err != nil {
		return err
	}
	domain, _, err := passLibxc(p, dst, 0)
	if err != nil {
		return err
	}
	return WriteTail(w, domain == xcstream.DomainHVM, in)
}

// WriteHead writes what comes before the libxc stream. A nil xl is a libxl stream alone.
func WriteHead(w *xlstream.Writer, xl *xlstream.XLHeader) error {
	if xl != nil {
		if err := w.XLHeader(*xl); err != nil {
			return err
		}
	}
	if err := w.Header(xlstream.Header{}); err != nil {
		return err
	}
	return w.Record(xlstream.TypeLibxcContext, nil)
}

// WriteTail writes what comes behind the libxc stream: the emulator's records if it has any, and END. hvm says whether the
// stream's domain is of the HVM type, which PVH is too; only such a one may have an emulator.
func WriteTail(w *xlstream.Writer, hvm bool, in Inputs) error {
	var pairs []xlstream.KeyValue
	var state io.ReadCloser
	var size uint64
	var err error
	if in.Xenstore != nil {
		if pairs, err = in.Xenstore(); err != nil {
			return fmt.Errorf("emulator's xenstore keys: %w", err)
		}
	}
	if in.Emulator != nil {
		if state, size, err = in.Emulator(); err != nil {
			return fmt.Errorf("emulator's state: %w", err)
		}
		defer func() { _ = state.Close() }()
	}
	if !hvm && (size > 0 || len(pairs) > 0) {
		return errors.New("the domain is x86 PV, and such a one has no emulator")
	}
	emulator := xlstream.EmulatorHeader{ID: xlstream.EmulatorUpstream}
	if len(pairs) > 0 {
		if err := w.Record(xlstream.TypeEmulatorXenstore, &xlstream.XenstoreData{EmulatorHeader: emulator, Pairs: pairs}); err != nil {
			return err
		}
	}
	if size > 0 {
		if err := w.EmulatorContext(emulator, state, size); err != nil {
			return err
		}
	}
	if in.Commit != nil {
		if err := in.Commit(); err != nil {
			return err
		}
	}
	return w.Record(xlstream.TypeEnd, nil)
}
