package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"xenferry/lib/transport"
)

// word is what the two ends of xl migrate say to each other beside the stream. All but the banner go with their NUL.
type word string

// The words, in the order in which they come. Source: Xen, tools/xl/xl_migrate.c.
const (
	banner word = "xl migration receiver ready, send binary domain data.\n" // target: before anything else
	ready  word = "domain received, ready to unpause\x00"                   // target: complete and paused
	goOn   word = "domain is yours, you are cleared to unpause\x00"         // source: it is yours; target: it is yours again
	report word = "my copy unpause results are as follows\x00"              // target: an octet follows, 0 for success
)

// Our own, in a hand-over that the source offered to hold, by a number in the tail of xl's header, which xl ignores. Nobody
// says any of them to xl.
const (
	held   word = "domain received and held, ready to unpause\x00"   // target, in place of ready
	keeps  word = "domain stays with me, destroy your copy\x00"      // source, in place of goOn; the target answers goOn once it has
	forget word = "my copy is destroyed, forget about hand-over\x00" // source, behind a good report
	offer  word = "xenferry hold 1 "                                 // source, in the tail of xl's header: the number follows
)

// offerOf is the tail of an xl header that offers to hold hand-over id.
func offerOf(id uuid.UUID) []byte { return append([]byte(offer), id.String()...) }

// offered is the number of the hand-over that a tail offers to hold; uuid.Nil if it offers nothing.
func offered(tail []byte) uuid.UUID {
	if rest, ok := bytes.CutPrefix(tail, []byte(offer)); ok {
		if id, err := uuid.ParseBytes(rest); err == nil {
			return id
		}
	}
	return uuid.Nil
}

// with is w and the octet behind it.
func (w word) with(status byte) word { return w + word([]byte{status}) }

// send sends w in one write.
func (w word) send(dst io.Writer) error {
	at("send " + w.text())
	if _, err := io.WriteString(dst, string(w)); err != nil {
		return fmt.Errorf("send %q: %w", w.text(), err)
	}
	at("sent " + w.text())
	return nil
}

// expect reads one of words, and not an octet more. It fails at the first octet that is of none: who says something else may
// then wait for ever, and so would this side.
func expect(src io.Reader, words ...word) (word, error) {
	var came []byte
	for {
		w, missing := nearest(words, came)
		switch {
		case w == "":
			return "", fmt.Errorf("waiting for %q: %q came", words[0].text(), came)
		case missing == 0:
			at("got " + w.text())
			return w, nil
		}
		b := make([]byte, missing)
		n, err := src.Read(b)
		came = append(came, b[:n]...)
		switch {
		case n > 0:
		case errors.Is(err, io.EOF):
			return "", fmt.Errorf("waiting for %q: the other end is gone after %d octets: %w", words[0].text(), len(came), io.ErrUnexpectedEOF)
		case err != nil:
			return "", fmt.Errorf("waiting for %q: %w", words[0].text(), err)
		}
	}
}

// nearest is the shortest of words that begins as came does, and how many octets of it are missing; none is "".
func nearest(words []word, came []byte) (w word, missing int) {
	for _, v := range words {
		if strings.HasPrefix(string(v), string(came)) && (w == "" || len(v) < len(w)) {
			w = v
		}
	}
	return w, len(w) - len(came)
}

// hear reads one of words from a link. It waits at most for patience, unless that is 0.
func hear(ctx context.Context, l *transport.Link, patience time.Duration, words ...word) (w word, err error) {
	err = patiently(ctx, l.In, patience, func(r io.Reader) error {
		w, err = expect(r, words...)
		return err
	})
	return w, err
}

// hearStatus reads the octet behind report.
func hearStatus(ctx context.Context, l *transport.Link, patience time.Duration) (status byte, err error) {
	var b [1]byte
	err = patiently(ctx, l.In, patience, func(r io.Reader) error {
		_, err := io.ReadFull(r, b[:])
		return err
	})
	return b[0], err
}

// patiently has read read a link until patience ends; 0 is for ever.
func patiently(ctx context.Context, in *os.File, patience time.Duration, read func(io.Reader) error) error {
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, patience, fmt.Errorf("nothing came within %v", patience))
		defer cancel()
	}
	r, err := transport.NewReader(ctx, int(in.Fd()))
	if err != nil {
		return err
	}
	return read(r)
}

// text is the word as people read it.
func (w word) text() string { return strings.TrimRight(strings.ToValidUTF8(string(w), ""), "\x00\n ") }

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
