// Package testkit is what tests of the stream formats share: streams as annotated hex, each with what reading it must
// end in.
package testkit

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"xenferry/lib/record"
)

// Vector is a stream and what strict and lenient reading make of it. Its file is annotated hex that begins with comments:
//
//	; what the stream is
//	; strict: missing at 0x98
//	; lenient: ok
//
// and, of a stream that says to be big-endian, what strict reading makes of it that takes either order of octets:
//
//	; either: ok
type Vector struct {
	Name            string // of the file, without .hex
	Data            []byte
	Strict, Lenient Outcome
	Either          Outcome // as Strict where the file does not say it
}

// Outcome is what reading a stream must end in: no error, or one of a kind at an offset.
type Outcome struct {
	Kind   error // one of record.ErrXxx, nil for none
	Offset uint64
}

// Check is nil if err, as reading returned it, is what o says.
func (o Outcome) Check(err error) error {
	if o.Kind == nil {
		return err
	}
	var at *record.Error
	switch {
	case !errors.Is(err, o.Kind):
		return fmt.Errorf("got %v, want: %w", err, o.Kind)
	case !errors.As(err, &at):
		return fmt.Errorf("no offset in: %w", err)
	case at.Offset != o.Offset:
		return fmt.Errorf("offset %#x, want %#x: %w", at.Offset, o.Offset, err)
	}
	return nil
}

// Want is the outcome for a mode.
func (v *Vector) Want(mode record.Mode) Outcome {
	if mode == record.Strict {
		return v.Strict
	}
	return v.Lenient
}

// The formats, which are the folders of the vectors.
const (
	LibXC = "libxc"
	LibXL = "libxl"
	XL    = "xl"
)

//go:embed vectors
var files embed.FS

// Vectors returns the vectors of a format.
func Vectors(format string) ([]Vector, error) {
	names, err := fs.Glob(files, "vectors/"+format+"/*.hex")
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("no vectors of format %q (%v)", format, err)
	}
	var vs []Vector
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		v, err := parseVector(strings.TrimSuffix(path.Base(name), ".hex"), string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		vs = append(vs, v)
	}
	return vs, nil
}

func parseVector(name, text string) (v Vector, err error) {
	v.Name = name
	var strict, lenient, either bool
	for line := range strings.Lines(text) {
		comment, ok := strings.CutPrefix(line, "; ")
		if !ok {
			break
		}
		key, value, _ := strings.Cut(strings.TrimSpace(comment), ": ")
		switch key {
		case "strict":
			v.Strict, err = parseOutcome(value)
			strict = true
		case "lenient":
			v.Lenient, err = parseOutcome(value)
			lenient = true
		case "either":
			v.Either, err = parseOutcome(value)
			either = true
		}
		if err != nil {
			return v, err
		}
	}
	if !strict || !lenient {
		return v, errors.New("does not say what strict and lenient reading end in")
	}
	if !either {
		v.Either = v.Strict
	}
	v.Data, err = ParseHex(text)
	return v, err
}

// kinds are the errors that an outcome can be, by their text.
var kinds = []error{record.ErrLength, record.ErrValue, record.ErrReserved, record.ErrPadding, record.ErrLimit,
	record.ErrTruncated, record.ErrUnknown, record.ErrOrder, record.ErrMissing, record.ErrUnusual}

func parseOutcome(s string) (Outcome, error) {
	if s == "ok" {
		return Outcome{}, nil
	}
	text, at, _ := strings.Cut(s, " at ")
	off, err := strconv.ParseUint(at, 0, 64)
	if err != nil {
		return Outcome{}, fmt.Errorf("outcome %q: %w", s, err)
	}
	for _, kind := range kinds {
		if kind.Error() == text {
			return Outcome{kind, off}, nil
		}
	}
	return Outcome{}, fmt.Errorf("outcome %q: no such kind of error", s)
}
