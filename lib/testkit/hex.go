package testkit

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// maxHex is the largest that ParseHex makes of a text, in octets.
const maxHex = 64 << 20

// ParseHex turns annotated hex into octets. A line is words, and a comment from ';' on. A word is an even number of hex
// digits, or text in double quotes as Go writes it; '*' and a decimal number behind either repeat it:
//
//	01 00 00 00 "physmap" 00 ; type, name
//	00*4096                  ; a page of zeros
func ParseHex(text string) ([]byte, error) {
	var out []byte
	n := 0
	for line := range strings.Lines(text) {
		n++
		for rest := strings.TrimSpace(line); rest != "" && rest[0] != ';'; rest = strings.TrimSpace(rest) {
			word, tail, err := cutWord(rest)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			if len(out)+len(word) > maxHex {
				return nil, fmt.Errorf("line %d: more than %d octets", n, maxHex)
			}
			out, rest = append(out, word...), tail
		}
	}
	return out, nil
}

// cutWord takes the first word off s.
func cutWord(s string) (octets []byte, rest string, err error) {
	if s[0] == '"' {
		quoted, err := strconv.QuotedPrefix(s)
		if err != nil {
			return nil, "", fmt.Errorf("%s: a text that does not end", s)
		}
		text, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", quoted, err)
		}
		octets, rest = []byte(text), s[len(quoted):]
	} else {
		end := strings.IndexAny(s+" ", " \t;*")
		if octets, err = hex.DecodeString(s[:end]); err != nil {
			return nil, "", fmt.Errorf("%q: %w", s[:end], err)
		}
		rest = s[end:]
	}
	count, ok := strings.CutPrefix(rest, "*")
	if !ok {
		return octets, rest, nil
	}
	end := strings.IndexAny(count+" ", " \t;")
	n, err := strconv.ParseUint(count[:end], 10, 32)
	if err != nil || n*uint64(len(octets)) > maxHex {
		return nil, "", fmt.Errorf("%q: not a number of repetitions", count[:end])
	}
	return bytes.Repeat(octets, int(n)), count[end:], nil
}
