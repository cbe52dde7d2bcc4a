package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"xenferry/lib/record"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// layer is a part of an xl save file that the guest's own state does not decide.
type layer struct {
	name   string
	octets []byte
}

// compareLayers reads two xl save files and says where they first differ outside the guest's own state.
func compareLayers(a, b string) error {
	one, err := outline(a)
	if err != nil {
		return err
	}
	two, err := outline(b)
	if err != nil {
		return err
	}
	size := 0
	for i := range max(len(one), len(two)) {
		switch {
		case i >= len(one) || i >= len(two):
			return fmt.Errorf("%s has %d parts, %s %d; the first %d are equal", a, len(one), b, len(two), i)
		case one[i].name != two[i].name:
			return fmt.Errorf("part %d is %s in %s, and %s in %s", i, one[i].name, a, two[i].name, b)
		case !bytes.Equal(one[i].octets, two[i].octets):
			return fmt.Errorf("%s: %q in %s, %q in %s", one[i].name, one[i].octets, a, two[i].octets, b)
		}
		size += len(one[i].octets)
	}
	fmt.Printf("equal: %d octets in %d parts\n", size, len(one))
	return nil
}

// outline is an xl save file without the guest's own state: xl's header with the configuration, the headers of libxl and
// libxc, the libxl records, of EMULATOR_CONTEXT what is before the state, and the order of libxc records but for PAGE_DATA.
func outline(name string) (layers []layer, err error) {
	file, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	o := &outliner{rest: file}
	o.take("xl header", xlstream.XLHeaderSize)
	if o.err == nil {
		o.take("configuration", binary.LittleEndian.Uint32(file[xlstream.XLHeaderSize-4:]))
	}
	o.take("libxl header", xlstream.HeaderSize)
	for end := false; !end && o.err == nil; {
		end = o.libxl()
	}
	if o.err == nil && len(o.rest) > 0 {
		o.err = fmt.Errorf("%d octets are behind END", len(o.rest))
	}
	if o.err != nil {
		return nil, fmt.Errorf("%s: behind %d octets: %w", name, len(file)-len(o.rest), o.err)
	}
	return o.layers, nil
}

// outliner takes a file apart from its beginning. After an error it does nothing more.
type outliner struct {
	rest   []byte
	layers []layer
	err    error
}

// next is the next n octets.
func (o *outliner) next(n uint64) []byte {
	if o.err == nil && n > uint64(len(o.rest)) {
		o.err = errors.New("cut off")
	}
	if o.err != nil {
		return nil
	}
	b := o.rest[:n]
	o.rest = o.rest[n:]
	return b
}

func (o *outliner) take(name string, n uint32) {
	o.layers = append(o.layers, layer{name, o.next(uint64(n))})
}

// record is the next record, its padding included.
func (o *outliner) record() (typ uint32, octets []byte) {
	if len(o.rest) < record.HeaderSize {
		o.next(record.HeaderSize)
		return 0, nil
	}
	h := record.Header{Type: binary.LittleEndian.Uint32(o.rest), Length: binary.LittleEndian.Uint32(o.rest[4:])}
	return h.Type, o.next(record.HeaderSize + h.Padded())
}

// libxl takes a libxl record, and the libxc stream behind LIBXC_CONTEXT. It reports whether it was END.
func (o *outliner) libxl() bool {
	const emulatorHeader = 8
	t, octets := o.record()
	typ := xlstream.Type(t)
	if typ == xlstream.TypeEmulatorContext {
		octets = octets[:min(len(octets), record.HeaderSize+emulatorHeader)]
	}
	o.layers = append(o.layers, layer{typ.String(), octets})
	if typ == xlstream.TypeLibxcContext {
		o.take("libxc headers", headers)
		for typ := xcstream.Type(1); typ != xcstream.TypeEnd && o.err == nil; {
			t, _ := o.record()
			if typ = xcstream.Type(t); typ != xcstream.TypePageData && o.err == nil {
				o.layers = append(o.layers, layer{typ.String(), nil})
			}
		}
	}
	return typ == xlstream.TypeEnd
}
