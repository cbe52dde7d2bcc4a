// Package verify checks streams strictly and says what is in them. Verify reads one stream of any layer (libxc, libxl,
// xl save file or migration) once from front to back and returns a Report; Compare holds the domains in two images against each
// other. The package opens nothing and logs nothing.
package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"xenferry/lib/record"
)

// Layer is a format that a stream can begin with.
type Layer uint8

// The layers, from the inside out. Auto tells them by their first octets.
const (
	Auto  Layer = iota
	LibXC       // image and domain header, then libxc records
	LibXL       // libxl header and records around a libxc stream
	XL          // what xl save writes and xl migrate sends: a header with the configuration, then a libxl stream

	legacyLayer // an image of Xen 4.5 or older, which no option names
)

var layerNames = [...]string{Auto: "auto", LibXC: "libxc", LibXL: "libxl", XL: "xl", legacyLayer: "legacy"}

// String is the layer's name as options write it.
func (l Layer) String() string { return layerNames[l] }

// ParseLayer is the inverse of String.
func ParseLayer(s string) (Layer, error) {
	for l, name := range layerNames {
		if name == s && Layer(l) != legacyLayer {
			return Layer(l), nil
		}
	}
	return Auto, fmt.Errorf("unknown format %q: want libxc, libxl or xl", s)
}

// Options say how Verify reads.
type Options struct {
	// Layer is the stream's outermost format.
	Layer Layer
	// Name is what the input is called where the Report names a command to use on it.
	Name string
	// Pedantic makes errors of what stock restore tolerates and no stock saver writes. The forms of the
	// specification's erratum 1, which old savers wrote, stay warnings.
	Pedantic bool
	// AllowTrailing takes no octet behind the stream's end, so that whatever follows is somebody else's. Without it an octet
	// there is an error, unless it is what xl says at the end of a migration.
	AllowTrailing bool
	// Record, if not nil, is told of each header and record that was taken and found good.
	Record func(Item)
}

// Item is a header or record as Options.Record is told of it.
type Item struct {
	Layer  Layer
	Offset uint64 // in the whole input
	Name   string // as the specification calls it
	Length uint32 // of the body, in octets
}

// ErrLegacy is what a stream of Xen 4.5 or older is refused with.
var ErrLegacy = errors.New("a legacy image of Xen 4.5 or older, which must be converted first")

// ErrTrailing is what octets behind the stream's end are refused with, other than what ends a migration of xl.
var ErrTrailing = errors.New("more octets behind the stream's end")

// Verify reads a stream from src. What is wrong with the stream is the Report's Error, and the Report then tells of what came
// before it; the error returned is src's own.
func Verify(src io.Reader, opts Options) (*Report, error) {
	return verify(src, opts, nil)
}

// verify is Verify with an observer of what the stream carries.
func verify(src io.Reader, opts Options, obs observer) (*Report, error) {
	v := &verifier{src: &source{r: src}, opts: opts, obs: obs, report: &Report{Warnings: Findings{First: []Finding{}}}}
	err := v.stream()
	v.report.Octets = v.src.off
	if v.x != nil {
		v.report.LibXC.Pages.Types = v.x.pages.histogram()
	}
	if v.src.err != nil {
		return v.report, fmt.Errorf("offset %#x: %w", v.src.off, v.src.err)
	}
	if err != nil {
		finding := findingOf(err)
		v.report.Error = &finding
	}
	v.report.Valid = err == nil
	return v.report, nil
}

// observer is told, while a stream is verified, what Compare keeps of it.
type observer interface {
	// record is a record of the libxc layer other than PAGE_DATA, decoded.
	record(x *libxc, value any) error
	// batch is a PAGE_DATA's header; its pages begin at offset.
	batch(entries []pageEntry, offset uint64) error
}

// verifier is the state of one Verify.
type verifier struct {
	src    *source
	opts   Options
	obs    observer
	report *Report
	x      *libxc // once its headers were read
}

// stream checks the whole input.
func (v *verifier) stream() error {
	layer := v.opts.Layer
	if layer == Auto {
		var err error
		if layer, err = v.detect(); err != nil {
			return err
		}
	}
	var err error
	switch layer {
	case XL:
		err = v.xl()
	case LibXL:
		err = v.libxl()
	default:
		err = v.bareLibXC()
	}
	if err != nil || v.opts.AllowTrailing {
		return err
	}
	return v.trailing()
}

// bareLibXC checks a libxc stream that no libxl stream is around.
func (v *verifier) bareLibXC() error {
	x, err := v.newLibXC()
	if err != nil {
		return err
	}
	ended, err := x.records()
	if err == nil && !ended {
		err = x.r.Wrap(fmt.Errorf("%w: libxl records follow, and this stream has no libxl layer", record.ErrOrder))
	}
	return err
}

// detect tells the outermost layer by the first octets, which it gives back to the source.
func (v *verifier) detect() (Layer, error) {
	var head [8]byte
	n, err := io.ReadFull(v.src, head[:])
	v.src.unread(head[:n])
	if err != nil {
		return Auto, &record.Error{Record: "first octets", Err: fmt.Errorf("%w: at offset %#x", record.ErrTruncated, n)}
	}
	switch {
	case binary.LittleEndian.Uint64(head[:]) == 1<<64-1:
		return LibXC, nil
	case string(head[:]) == "LibxlFmt":
		return LibXL, nil
	case string(head[:]) == "Xen save":
		return XL, nil
	case looksLegacy(head[:]):
		return Auto, v.legacy("first octets")
	}
	err = fmt.Errorf("%w: % x begins neither a libxc stream, nor a libxl stream, nor an xl save file", record.ErrValue, head)
	if is := record.Foreign(head[:]); is != "" {
		err = fmt.Errorf("%w: neither a libxc stream, nor a libxl stream, nor an xl save file: it is %s", record.ErrValue, is)
	}
	return Auto, &record.Error{Record: "first octets", Err: err}
}

// tolerate makes a warning of an error that restore would not see, and returns all others, and in pedantic mode those too.
func (v *verifier) tolerate(err error) error {
	if err == nil || !record.IsTolerable(err) || v.opts.Pedantic {
		return err
	}
	v.warn(err)
	return nil
}

func (v *verifier) warn(err error) { v.report.Warnings.add(findingOf(err)) }

func (v *verifier) tell(item Item) {
	if v.opts.Record != nil {
		v.opts.Record(item)
	}
}

// source is the input: it counts what was taken, keeps the input's own error apart from the stream's, and can be given the first
// octets back.
type source struct {
	r    io.Reader
	head []byte // given back, not yet taken again
	off  uint64
	err  error // the input's, other than io.EOF
}

func (s *source) unread(head []byte) {
	s.head = head
	s.off -= uint64(len(head))
}

func (s *source) Read(p []byte) (int, error) {
	if len(s.head) > 0 {
		n := copy(p, s.head)
		s.head = s.head[n:]
		s.off += uint64(n)
		return n, nil
	}
	n, err := s.r.Read(p)
	s.off += uint64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}
