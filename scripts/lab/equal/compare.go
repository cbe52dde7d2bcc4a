package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

//go:embed may-differ
var mayDiffer string

// exemptions reads may-differ: by the name of a part, the octets first to last that need not be equal.
func exemptions(text string) (map[string][][2]int, error) {
	all := map[string][][2]int{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		var where, why string
		var first, last int
		if _, err := fmt.Sscan(line, &where, &first, &last, &why); err != nil || first < 0 || last < first {
			return nil, fmt.Errorf("may-differ: %q: want PART FIRST LAST WHY", line)
		}
		all[where] = append(all[where], [2]int{first, last})
	}
	return all, nil
}

// headers is the length of the image header and the domain header, before the first record.
const headers = 24 + 16

// reader cuts a stream into its headers and its records.
type reader struct {
	name string
	src  *bufio.Reader
	next uint64 // offset of the next unit
}

// unit is the headers, or a record with its header and padding.
type unit struct {
	name  string
	at    uint64
	whole []byte
	body  []byte // in whole
}

// padding is what is behind the body.
func (u *unit) padding() part {
	return part{u.name, ", padding", u.whole[len(u.whole)-(len(u.whole)-len(u.body))%record.HeaderSize:]}
}

func open(name string) (*reader, func() error, error) {
	if name == "-" {
		return &reader{name: "standard input", src: bufio.NewReader(os.Stdin)}, os.Stdin.Close, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	return &reader{name: name, src: bufio.NewReader(f)}, f.Close, nil
}

// read returns the next unit, io.EOF behind the last.
func (r *reader) read() (u unit, err error) {
	u = unit{name: "headers", at: r.next}
	size := uint64(headers)
	if r.next > 0 {
		head, err := r.src.Peek(record.HeaderSize)
		if err == io.EOF && len(head) == 0 {
			return u, io.EOF
		}
		if err != nil {
			return u, fmt.Errorf("%s: a record's header is cut off at %#x", r.name, r.next)
		}
		h := record.Header{Type: binary.LittleEndian.Uint32(head), Length: binary.LittleEndian.Uint32(head[4:])}
		u.name = xcstream.Type(h.Type).String()
		if size = record.HeaderSize + h.Padded(); h.Length > maxRecord {
			return u, fmt.Errorf("%s: %s at %#x is of %d octets", r.name, u.name, r.next, h.Length)
		}
	}
	u.whole = make([]byte, size)
	if _, err := io.ReadFull(r.src, u.whole); err != nil {
		return u, fmt.Errorf("%s: the %s of %d octets at %#x is cut off", r.name, u.name, size, r.next)
	}
	if u.body = u.whole; r.next > 0 {
		u.body = u.whole[record.HeaderSize:][:binary.LittleEndian.Uint32(u.whole[4:])]
	}
	r.next += size
	return u, nil
}

// maxRecord is more than any record that a saver writes: a batch of 1024 pages.
const maxRecord = 8 << 20

// compare reads two streams and says in what they differ that may not.
func compare(a, b string) error {
	exempt, err := exemptions(mayDiffer)
	if err != nil {
		return err
	}
	one, closeOne, err := open(a)
	if err != nil {
		return err
	}
	defer func() { _ = closeOne() }()
	two, closeTwo, err := open(b)
	if err != nil {
		return err
	}
	defer func() { _ = closeTwo() }()
	var found []string
	for n := 0; ; n++ {
		x, errX := one.read()
		y, errY := two.read()
		switch {
		case errX == io.EOF && errY == io.EOF:
			return verdict(found, one.next, n-1)
		case errX == io.EOF, errY == io.EOF:
			return fmt.Errorf("%s has %d octets, %s %d", a, one.next, b, two.next)
		case errX != nil || errY != nil:
			return errors.Join(errX, errY)
		case !bytes.Equal(x.whole[:record.HeaderSize], y.whole[:record.HeaderSize]):
			return verdict(append(found, fmt.Sprintf("%#x: %s of %d octets, %s of %d", x.at, x.name, len(x.body), y.name, len(y.body))), 0, 0)
		}
		if found = append(found, differences(x, y, exempt)...); len(found) > 20 {
			return verdict(append(found, "and so on"), 0, 0)
		}
	}
}

func verdict(found []string, octets uint64, records int) error {
	if len(found) > 0 {
		return errors.New("the streams differ:\n" + strings.Join(found, "\n"))
	}
	fmt.Printf("equal: %d octets in %d records\n", octets, records)
	return nil
}

// part is what of a unit has a name of its own.
type part struct {
	name, detail string
	data         []byte
}

// differences is a line for each run of octets that differ.
func differences(x, y unit, exempt map[string][][2]int) (found []string) {
	if bytes.Equal(x.whole, y.whole) {
		return nil
	}
	xs, ys := append(parts(x), x.padding()), append(parts(y), y.padding())
	same := func(a, b part) bool { return a.name == b.name && a.detail == b.detail && len(a.data) == len(b.data) }
	if !slices.EqualFunc(xs, ys, same) {
		return []string{fmt.Sprintf("%#x: %s has other parts", x.at, x.name)}
	}
	for i := range xs {
		a, b := xs[i].data, ys[i].data
		may := func(at int) bool {
			return slices.ContainsFunc(exempt[xs[i].name], func(e [2]int) bool { return e[0] <= at && at <= e[1] })
		}
		for at := 0; at < len(a); at++ {
			first := at
			for at < len(a) && a[at] != b[at] && !may(at) {
				at++
			}
			if at > first {
				found = append(found, fmt.Sprintf("%#x: %s%s, octets %d to %d: % x, % x", x.at, xs[i].name, xs[i].detail, first, at-1, a[first:at], b[first:at]))
			}
		}
	}
	return found
}

// parts takes a unit apart: an HVM context into its entries, a batch into its entries and pages. What is not as it should
// be is one part, as is everything else.
func parts(u unit) []part {
	switch u.name {
	case xcstream.TypeHVMContext.String():
		entries, err := xcstream.ParseHVMContext(u.body)
		if err != nil {
			break
		}
		var all []part
		for _, e := range entries {
			all = append(all, part{u.name + "/" + e.Code.String(), fmt.Sprintf(" %d", e.Instance), e.Data})
		}
		return all
	case xcstream.TypePageData.String():
		const head = 8
		if len(u.body) < head {
			break
		}
		n := int(binary.LittleEndian.Uint32(u.body))
		if n > (len(u.body)-head)/8 {
			break
		}
		entries, pages := u.body[head:][:8*n], u.body[head+8*n:]
		all := []part{{u.name, "", u.body[:head+8*n]}}
		for i := range n {
			e := xcstream.PageEntry(binary.LittleEndian.Uint64(entries[8*i:]))
			if e.Type().HasData() && len(pages) >= guest.PageSize {
				all = append(all, part{u.name, fmt.Sprintf(", PFN %#x", e.PFN()), pages[:guest.PageSize]})
				pages = pages[guest.PageSize:]
			}
		}
		return all
	}
	return []part{{u.name, "", u.body}}
}
