package main

import (
	"fmt"
	"io"

	"xenferry/lib/outfile"
)

// output is a file that a part of the stream goes to. A failure leaves nothing half-written.
type output struct {
	path string // empty: not asked for
	file *outfile.File
}

// opener is what the filter calls for each part, or nil if the part is not asked for.
func (o *output) opener() func() (io.WriteCloser, error) {
	if o.path == "" {
		return nil
	}
	return o.open
}

// open returns the output, emptied if it was written to before: the last part of its kind counts.
func (o *output) open() (_ io.WriteCloser, err error) {
	if o.file != nil {
		if !o.file.Lasting() {
			return nil, fmt.Errorf("%s: the stream has this twice, and a pipe cannot be emptied", o.path)
		}
		if err := o.file.Truncate(0); err != nil {
			return nil, err
		}
		_, err := o.file.Seek(0, io.SeekStart)
		return kept{o.file}, err
	}
	o.file, err = outfile.Create(o.path, 0o600) // guest state
	if err != nil {
		o.file = nil
	}
	return kept{o.file}, err
}

// kept is a file that its user does not close.
type kept struct{ io.Writer }

func (kept) Close() error { return nil }

// commit gives the file its name. A part that did not come is an empty file.
func (o *output) commit() error {
	if o.path == "" {
		return nil
	}
	if o.file == nil {
		if _, err := o.open(); err != nil {
			return err
		}
	}
	if err := o.file.Commit(); err != nil {
		return err
	}
	return o.file.Close()
}

// discard removes what is not committed.
func (o *output) discard() {
	if o.file != nil {
		o.file.Discard()
	}
}
