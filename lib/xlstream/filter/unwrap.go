// Package filter takes the layers of a saved or migrating domain apart, or puts them around it, while its octets pass by: xl
// header, libxl stream, libxc stream.
package filter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"xenferry/lib/record"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// Layer is what a stream begins with.
type Layer int

// The layers, the outermost first.
const (
	LayerXL Layer = iota + 1
	LayerLibxl
	LayerLibxc
)

// String is the program that reads such a stream.
func (l Layer) String() string {
	return [...]string{LayerXL: "xl", LayerLibxl: "libxl", LayerLibxc: "libxc"}[l]
}

// DetectSize is how many octets Detect looks at.
const DetectSize = 8

// Detect tells a layer by its first DetectSize octets. The error is record.ErrValue.
func Detect(first []byte) (Layer, error) {
	switch {
	case len(first) < DetectSize:
		return 0, fmt.Errorf("%w: only %d octets", record.ErrTruncated, len(first))
	case string(first[:DetectSize]) == xlstream.XLMagic[:DetectSize]:
		return LayerXL, nil
	case string(first[:DetectSize]) == xlstream.Ident:
		return LayerLibxl, nil
	case binary.LittleEndian.Uint64(first) == 1<<64-1:
		return LayerLibxc, nil
	}
	if is := record.Foreign(first); is != "" {
		return 0, fmt.Errorf("%w: neither an xl, libxl nor libxc stream: it is %s", record.ErrValue, is)
	}
	return 0, fmt.Errorf("%w: begins with % x: neither an xl, libxl nor libxc stream (one of Xen 4.5 and older is for convert-legacy)",
		record.ErrValue, first[:DetectSize])
}

// Outputs is where Unwrap puts what it takes apart.
type Outputs struct {
	// Image gets the libxc stream. Where it is fast to, page data goes there by the source's record.Copier.
	Image io.Writer

	// Config opens the place for the configuration in the xl header, as it is there, without its final NUL; Emulator
	// that for the emulator's state; Xenstore that for its keys and values, a NUL behind each. Each is called when the
	// stream has such a thing, again if it comes again, and may be nil.
	Config, Emulator, Xenstore func() (io.WriteCloser, error)
}

// Unwrap reads a stream that begins with any of the layers, through the END of that layer and not an octet more, and
// writes what is in it to out. It judges record order and framing as stock restore does, and looks into no page.
// A stream with checkpoints is refused: its libxc records cannot stand without the libxl records between them.
//
// Errors of the stream match record.IsInvalid and carry offset and record.
func Unwrap(src io.Reader, out Outputs) error {
	u := &unwrapper{src: record.NewPeeker(src), out: out}
	first, err := u.src.Peek(DetectSize)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	layer, err := Detect(first)
	switch {
	case err != nil:
		return &record.Error{Record: "stream", Err: err}
	case layer == LayerXL:
		off, err := u.xl()
		if err != nil {
			return err
		}
		return u.libxl(off)
	case layer == LayerLibxl:
		return u.libxl(0)
	}
	_, _, err = u.libxc(0)
	return err
}

type unwrapper struct {
	src *record.Peeker
	out Outputs
}

// xl takes the xl header, and returns where the libxl stream begins.
func (u *unwrapper) xl() (uint64, error) {
	h, off, err := ReadXL(u.src)
	if err != nil || h.Config == nil {
		return off, err
	}
	return off, emit(u.out.Config, "configuration", func(w io.Writer) error {
		_, err := w.Write(h.Config)
		return err
	})
}

// libxl takes a libxl stream with the libxc stream in it.
func (u *unwrapper) libxl(off uint64) error {
	r := xlstream.NewReader(u.src, record.Lenient, off)
	return walk(r, func(t xlstream.Type) error { return u.libxlRecord(r, t) }, u.libxc)
}

// libxlRecord takes the body of a libxl record and emits what it is of use for.
func (u *unwrapper) libxlRecord(r *xlstream.Reader, t xlstream.Type) error {
	switch t {
	case xlstream.TypeEmulatorContext:
		if _, err := r.EmulatorContext(); err != nil {
			return err
		}
		if u.out.Emulator == nil {
			return r.Skip()
		}
		if err := emit(u.out.Emulator, "emulator state", r.Copy); err != nil {
			return err
		}
		return r.End()
	case xlstream.TypeEmulatorXenstore:
		var d xlstream.XenstoreData
		if err := r.Decode(&d); err != nil {
			return err
		}
		return emit(u.out.Xenstore, "emulator's xenstore keys", func(w io.Writer) error {
			_, err := w.Write(xlstream.AppendPairs(nil, d.Pairs))
			return err
		})
	}
	return r.Decode(t.New())
}

// libxc passes the libxc stream on.
func (u *unwrapper) libxc(off uint64) (domain xcstream.DomainType, end uint64, err error) {
	return passLibxc(u.src, u.out.Image, off)
}

// emit has write fill what open opens. A nil open is none asked for.
func emit(open func() (io.WriteCloser, error), what string, write func(io.Writer) error) error {
	if open == nil {
		return nil
	}
	w, err := open()
	if err != nil {
		return fmt.Errorf("write %s: %w", what, err)
	}
	if err := errors.Join(write(w), w.Close()); err != nil {
		return fmt.Errorf("write %s: %w", what, err)
	}
	return nil
}
