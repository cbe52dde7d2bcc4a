package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// output is a file that a part of the stream goes to. It is written beside its path and takes its name by commit, so
// that a failure leaves nothing half-written; what is there and no regular file is written to directly.
type output struct {
	path string // empty: not asked for
	file *os.File
	temp bool // file is beside path
}

// opener is what the filter calls for each part, or nil if the part is not asked for.
func (o *output) opener() func() (io.WriteCloser, error) {
	if o.path == "" {
		return nil
	}
	return o.open
}

// open returns the output, emptied if it was written to before: the last part of its kind counts.
func (o *output) open() (io.WriteCloser, error) {
	if o.file != nil {
		if !o.temp {
			return nil, fmt.Errorf("%s: the stream has this twice, and a pipe cannot be emptied", o.path)
		}
		if err := o.file.Truncate(0); err != nil {
			return nil, err
		}
		_, err := o.file.Seek(0, io.SeekStart)
		return kept{o.file}, err
	}
	st, err := os.Stat(o.path)
	switch {
	case err == nil && !st.Mode().IsRegular():
		o.file, err = os.OpenFile(o.path, os.O_WRONLY, 0)
	case err == nil || errors.Is(err, fs.ErrNotExist):
		o.temp = true
		o.file, err = os.CreateTemp(filepath.Dir(o.path), "."+filepath.Base(o.path)+".*") // mode 0600: guest state
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
	if err := o.file.Close(); err != nil {
		return err
	}
	if o.temp {
		if err := os.Rename(o.file.Name(), o.path); err != nil {
			return err
		}
	}
	o.file = nil
	return nil
}

// discard removes what is not committed.
func (o *output) discard() {
	if o.file == nil {
		return
	}
	_ = o.file.Close()
	if o.temp {
		_ = os.Remove(o.file.Name())
	}
}
