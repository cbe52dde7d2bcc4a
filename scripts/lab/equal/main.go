// Command equal holds our saver to the stock one, octet for octet, on the same suspended domain.
//
// As the helper that LIBXL_SAVE_HELPER names, for Xen 4.14 and later, it runs the stock helper ($EQUAL_STOCK) in libxl's place;
// when that says complete and the domain is still suspended, it first lets ours ($EQUAL_OURS) save the domain into the
// file $EQUAL_OUT, and only then passes complete on.
//
//	usage: equal A B
//
// compares two libxc streams. Allowed to differ are X86_TSC_INFO.nsec and the tsc of HVM_CONTEXT's CPU entries: two runs of the
// stock helper differ in them.
//
// Exit status: 0 equal; 1 not, and where; 2 wrong usage. As a helper, that of the stock helper.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"xenferry/lib/helper"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

func main() {
	args := os.Args[1:]
	switch {
	case helper.IsCall(args):
		os.Exit(interpose(args))
	case len(args) == 2:
		if err := compare(args[0], args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "equal:", err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: equal A B")
		os.Exit(2)
	}
}

// interpose is the stock helper's life, with ours in it. Its descriptors stay what libxl made them: the stream's number goes
// through to the stock helper, which reads libxl's answers itself.
func interpose(args []string) int {
	stock := exec.Command(os.Getenv("EQUAL_STOCK"), args...)
	stock.Stdin, stock.Stderr = os.Stdin, os.Stderr
	messages, err := stock.StdoutPipe()
	if err == nil {
		err = stock.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "equal:", err)
		return 255
	}
	for {
		var raw bytes.Buffer
		m, err := helper.ReadMessage(io.TeeReader(messages, &raw), helper.Numbering414)
		if err != nil {
			break
		}
		if m.Kind == helper.Complete && args[0] == helper.SaveWord {
			if err := ours(args); err != nil {
				fmt.Fprintln(os.Stderr, "equal: our saver:", err)
			}
		}
		if _, err := os.Stdout.Write(raw.Bytes()); err != nil {
			break
		}
	}
	var exit *exec.ExitError
	if err := stock.Wait(); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// ours has our saver write the domain, which is suspended, to $EQUAL_OUT, and answers it as libxl would.
func ours(args []string) error {
	out, err := os.Create(os.Getenv("EQUAL_OUT"))
	if err != nil {
		return err
	}
	defer out.Close()
	call := append([]string(nil), args...) // --save-domain fd recv_fd domid xcflags cbflags stream_type
	call[1], call[2], call[4] = "3", "-1", "0"
	save := exec.Command(os.Getenv("EQUAL_OURS"), call...)
	save.ExtraFiles, save.Stderr = []*os.File{out}, os.Stderr
	replies, err := save.StdinPipe()
	if err != nil {
		return err
	}
	messages, err := save.StdoutPipe()
	if err != nil {
		return err
	}
	if err := save.Start(); err != nil {
		return err
	}
	for {
		m, err := helper.ReadMessage(messages, helper.Numbering414)
		if err != nil {
			break
		}
		answer := int32(0)
		switch m.Kind {
		case helper.Log:
			fmt.Fprintln(os.Stderr, "equal: our saver:", m.Texts[1])
		case helper.Suspend:
			answer = 1
		case helper.Complete:
			if int32(m.Numbers[0]) != 0 {
				fmt.Fprintln(os.Stderr, "equal: our saver: complete", int32(m.Numbers[0]), m.Numbers[1])
			}
		}
		if m.Kind.WantsReply() {
			if err := helper.Reply(replies, answer); err != nil {
				break
			}
		}
	}
	return save.Wait()
}

// compare reads two streams and says where they first differ.
func compare(a, b string) (err error) {
	one, records, err := load(a)
	if err != nil {
		return err
	}
	two, _, err := load(b)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			fmt.Printf("equal: %d octets in %d records\n", len(one), len(records)-1)
		}
	}()
	n := min(len(one), len(two))
	for i := range n {
		if one[i] != two[i] {
			at := records[0]
			for _, r := range records {
				if r.offset <= i {
					at = r
				}
			}
			return fmt.Errorf("%s and %s differ at %#x, octet %d of the %s at %#x: %#02x, %#02x", a, b, i, i-at.offset, at.name, at.offset, one[i], two[i])
		}
	}
	if len(one) != len(two) {
		return fmt.Errorf("%s has %d octets, %s %d; the first %d are equal", a, len(one), b, len(two), n)
	}
	return nil
}

// part is where in a stream something begins.
type part struct {
	offset int
	name   string
}

// headers is the length of the image header and the domain header, before the first record.
const headers = 24 + 16

// load reads a libxc stream and blanks in it what may differ.
func load(name string) (stream []byte, parts []part, err error) {
	if stream, err = os.ReadFile(name); err != nil {
		return nil, nil, err
	}
	parts = []part{{0, "headers"}}
	for at := headers; at < len(stream); {
		if len(stream)-at < record.HeaderSize {
			return nil, nil, fmt.Errorf("%s: a record's header is cut off at %#x", name, at)
		}
		h := record.Header{Type: binary.LittleEndian.Uint32(stream[at:]), Length: binary.LittleEndian.Uint32(stream[at+4:])}
		body := at + record.HeaderSize
		next := uint64(body) + h.Padded()
		if next > uint64(len(stream)) {
			return nil, nil, fmt.Errorf("%s: a record of %d octets is cut off at %#x", name, h.Length, at)
		}
		typ := xcstream.Type(h.Type)
		parts = append(parts, part{at, typ.String()})
		if err := blank(typ, stream[body:body+int(h.Length)]); err != nil {
			return nil, nil, fmt.Errorf("%s: %v at %#x: %w", name, typ, at, err)
		}
		at = int(next)
	}
	return stream, parts, nil
}

// blank makes zeros of what may differ in a record's body.
func blank(typ xcstream.Type, body []byte) error {
	switch typ {
	case xcstream.TypeX86TSCInfo:
		if len(body) < 16 {
			return errors.New("too short: " + strconv.Itoa(len(body)))
		}
		clear(body[8:16])
	case xcstream.TypeHVMContext:
		entries, err := xcstream.ParseHVMContext(body)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Code == xcstream.HVMCPU {
				clear(e.Data[xcstream.HVMCPUTSC(len(e.Data)):][:8])
			}
		}
	}
	return nil
}
