package testkit

import "bytes"

// A stream is mostly pages, which a fuzzer would spend its time on. Its inputs are therefore squeezed: an escape octet,
// the octet to be repeated, and how often, little-endian u16, stand for a run.
const (
	escape     = 0xF5
	minRun     = 16
	maxStretch = 1 << 20
)

// Squeeze makes a fuzzer's input of a stream.
func Squeeze(b []byte) (out []byte) {
	for len(b) > 0 {
		n := 1
		for n < min(len(b), 1<<16-1) && b[n] == b[0] {
			n++
		}
		if n < minRun && b[0] != escape {
			out, b = append(out, b[0]), b[1:]
			continue
		}
		out, b = append(out, escape, b[0], byte(n), byte(n>>8)), b[n:]
	}
	return out
}

// Stretch makes a stream of a fuzzer's input: the inverse of Squeeze, for any octets, and at most 1 MiB.
func Stretch(b []byte) (out []byte) {
	for len(b) > 0 && len(out) < maxStretch {
		if b[0] != escape || len(b) < 4 {
			out, b = append(out, b[0]), b[1:]
			continue
		}
		out, b = append(out, bytes.Repeat(b[1:2], int(b[2])|int(b[3])<<8)...), b[4:]
	}
	return out
}
