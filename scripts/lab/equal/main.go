// Command equal holds our saver to the stock one, octet for octet, on the same suspended domain.
//
// As the helper that LIBXL_SAVE_HELPER names, for Xen 4.14 and later, it runs the stock helper ($EQUAL_STOCK) in libxl's place;
// when that says complete and the domain is still suspended, it first lets other helpers save the domain, one after the
// other, and only then passes complete on. $EQUAL_SAVERS says which, and into which files: HELPER=FILE,HELPER=FILE.
//
//	usage: equal A B
//
// compares two libxc streams, of which one may be -, standard input. What may differ is in the file may-differ beside this one.
//
//	usage: equal layers A B
//
// compares two xl save files of one domain wherever the guest's own state does not decide.
//
// Exit status: 0 equal; 1 not, and where; 2 wrong usage. As a helper, that of the stock helper.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"xenferry/lib/helper"
)

func main() {
	args := os.Args[1:]
	switch {
	case helper.IsCall(args):
		os.Exit(interpose(args))
	case len(args) == 2:
		exit(compare(args[0], args[1]))
	case len(args) == 3 && args[0] == "layers":
		exit(compareLayers(args[1], args[2]))
	default:
		fmt.Fprintln(os.Stderr, "usage: equal [layers] A B")
		os.Exit(2)
	}
}

// exit ends with what a comparison came to.
func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "equal:", err)
		os.Exit(1)
	}
}

// interpose is the stock helper's life, with the other savers in it. Its descriptors stay what libxl made them: the stream's number goes
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
			for pair := range strings.SplitSeq(os.Getenv("EQUAL_SAVERS"), ",") {
				saver, file, _ := strings.Cut(pair, "=")
				if err := again(saver, file, args); err != nil {
					fmt.Fprintf(os.Stderr, "equal: %s: %v\n", saver, err)
				}
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

// again has a saver write the domain, which is suspended, to a file, and answers it as libxl would.
func again(saver, file string, args []string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	call := append([]string(nil), args...) // --save-domain fd recv_fd domid xcflags cbflags stream_type
	call[1], call[2], call[4] = "3", "-1", "0"
	save := exec.Command(saver, call...)
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
			fmt.Fprintf(os.Stderr, "equal: %s: %s\n", saver, m.Texts[1])
		case helper.Suspend:
			answer = 1
		case helper.Complete:
			if int32(m.Numbers[0]) != 0 {
				fmt.Fprintf(os.Stderr, "equal: %s: complete %d %d\n", saver, int32(m.Numbers[0]), m.Numbers[1])
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
