// Package handover is the words by which xc-save and xc-restore hand a domain over when there is a way back (--ack): READY
// comes from the target when the domain is complete and paused, GO goes to it on the stream behind END, RUNNING or FAILED
// comes back. Only one line at a time is under way, so neither end ever reads ahead.
package handover

import (
	"fmt"
	"io"
)

// Word is one line of the hand-over, without its line feed. All are 7 octets and the line feed.
type Word string

// The words.
const (
	Ready   Word = "READY  "
	Go      Word = "GO     "
	Running Word = "RUNNING"
	Failed  Word = "FAILED " // the target's copy is destroyed and never ran
)

const size = 8

// Send writes w in one write.
func Send(dst io.Writer, w Word) error {
	if _, err := io.WriteString(dst, string(w)+"\n"); err != nil {
		return fmt.Errorf("send %s: %w", w, err)
	}
	return nil
}

// Receive reads a word, one of want.
func Receive(src io.Reader, want ...Word) (Word, error) {
	var b [size]byte
	if n, err := io.ReadFull(src, b[:]); err != nil {
		return "", fmt.Errorf("waiting for %s: %d octets came: %w", want[0], n, err)
	}
	for _, w := range want {
		if string(b[:]) == string(w)+"\n" {
			return w, nil
		}
	}
	return "", fmt.Errorf("waiting for %s: %q came", want[0], b)
}
