package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"xenferry/lib/legacy"
	"xenferry/lib/transport"
)

// input is the image's descriptor.
type input struct {
	fd   int
	ours bool // opened here
}

// openInput opens what -i names. A named pipe whose writer is not there yet does not block here, so that a signal still
// ends the wait for it.
func openInput(name string) (*input, error) {
	if fd, ok := descriptor(name); ok {
		return &input{fd: fd}, nil
	}
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return &input{fd, true}, nil
}

func (in *input) close() {
	if in.ours {
		_ = unix.Close(in.fd)
	}
}

// output is the stream's descriptor, or the file that it is in.
type output struct {
	name string // as given
	fd   int

	mu   sync.Mutex // whoever is interrupted may abandon it while it is being opened
	path string     // of a regular file opened here, else empty
}

// open opens what -o names; a file that is there is emptied.
func (o *output) open() (err error) {
	if fd, ok := descriptor(o.name); ok {
		o.fd = fd
		return nil
	}
	o.fd, err = unix.Open(o.name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOCTTY, 0o666)
	if err != nil {
		return fmt.Errorf("open %s: %w", o.name, err)
	}
	if transport.IsRegular(o.fd) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.path, err = filepath.EvalSymlinks(o.name)
	}
	return err
}

// close closes the descriptor: an error that comes only then is one of writing.
func (o *output) close() error {
	if err := unix.Close(o.fd); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("close %s: %w", o.name, err)
	}
	return nil
}

// abandon leaves no file under its name that err kept from becoming whole, and says so with err.
func (o *output) abandon(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.path == "" {
		return err
	}
	info, failed := os.Stat(o.path)
	if failed == nil && info.Size() == 0 {
		return errors.Join(err, os.Remove(o.path))
	}
	partial := o.path + ".partial"
	if failed == nil {
		failed = os.Rename(o.path, partial)
	}
	if failed != nil {
		return errors.Join(err, failed)
	}
	return fmt.Errorf("%w; what was converted is in %s", err, partial)
}

// spool is a file without a name.
type spool struct {
	w    *transport.Writer
	file *os.File
}

func newSpool() (legacy.Spool, error) {
	file, err := os.CreateTemp("", "convert-legacy-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	w, err := transport.NewWriter(int(file.Fd()))
	return spool{w, file}, err
}

// Writer is where octets come in.
func (s spool) Writer() io.Writer { return s.w }

// MoveTo writes them to w and forgets them.
func (s spool) MoveTo(w io.Writer) error {
	size, err := s.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err = s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r, err := transport.NewReader(context.Background(), int(s.file.Fd()))
	if err != nil {
		return err
	}
	if _, err := r.CopyTo(w, uint64(size)); err != nil {
		return err
	}
	return s.Reset()
}

// Reset forgets them.
func (s spool) Reset() error {
	_, err := s.file.Seek(0, io.SeekStart)
	return errors.Join(err, s.file.Truncate(0))
}
