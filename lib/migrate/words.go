package migrate

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// word is what the two ends of xl migrate say to each other beside the stream. All but the banner go with their NUL.
type word string

// The words, in the order in which they come. Source: tools/xl/xl_migrate.c; facts in stream-v2.md, 3.2.
const (
	banner word = "xl migration receiver ready, send binary domain data.\n" // target: before anything else
	ready  word = "domain received, ready to unpause\x00"                   // target: complete and paused
	goOn   word = "domain is yours, you are cleared to unpause\x00"         // source: it is yours; target: it is yours again
	report word = "my copy unpause results are as follows\x00"              // target: an octet follows, 0 for success
)

// send sends w in one write.
func (w word) send(dst io.Writer) error {
	if _, err := io.WriteString(dst, string(w)); err != nil {
		return fmt.Errorf("send %q: %w", w.text(), err)
	}
	return nil
}

// expect reads w, and not an octet more. It fails at the first octet that is another: who says something else may then wait
// for ever, and so would this side.
func (w word) expect(src io.Reader) error {
	b := make([]byte, len(w))
	for n := 0; n < len(w); {
		m, err := src.Read(b[n:])
		n += m
		switch {
		case !strings.HasPrefix(string(w), string(b[:n])):
			return fmt.Errorf("waiting for %q: %q came", w.text(), b[:n])
		case n == len(w):
		case errors.Is(err, io.EOF):
			return fmt.Errorf("waiting for %q: the other end is gone after %d octets: %w", w.text(), n, io.ErrUnexpectedEOF)
		case err != nil:
			return fmt.Errorf("waiting for %q: %w", w.text(), err)
		}
	}
	return nil
}

// text is the word as people read it.
func (w word) text() string { return string(w[:len(w)-1]) }

// The octet behind report.
const (
	statusDone   = 0
	statusFailed = 0xFF // ERROR_FAIL of libxl is -3, a broken protocol 1, both as -rc & 0xFF; the source looks for 0 only
)

// The names of a domain whose hand-over is under way.
const (
	suffixAway     = "--migratedaway" // on the source, from GO on
	suffixIncoming = "--incoming"     // on the target, until it has GO
)
