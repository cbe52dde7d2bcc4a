package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"xenferry/lib/legacy"
	"xenferry/lib/outfile"
	"xenferry/lib/transport"
)

// input is the image's descriptor.
type input struct {
	fd   int
	ours bool        // opened here
	info os.FileInfo // nil if there is none
}

// openInput opens what -i names. A named pipe whose writer is not there yet does not block here, so that a signal still
// ends the wait for it.
func openInput(name string) (*input, error) {
	if fd, ok := descriptor(name); ok {
		in := &input{fd: fd}
		in.info, _ = os.Stat(fmt.Sprintf("/proc/self/fd/%d", fd))
		return in, nil
	}
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	in := &input{fd: fd, ours: true}
	if in.info, err = os.Stat(name); err != nil {
		in.close()
		return nil, err
	}
	return in, nil
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

	mu    sync.Mutex    // whoever is interrupted may abandon it while it is being opened
	file  *outfile.File // opened here, else nil
	image os.FileInfo   // of the input
}

// open opens what -o names. The image may be in the same file: it stays there until the stream is complete.
func (o *output) open(in *input) error {
	if fd, ok := descriptor(o.name); ok {
		o.fd = fd
		return nil
	}
	file, err := outfile.Create(o.name, 0o666)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.file, o.fd = file, int(file.Fd())
	o.image = in.info
	return nil
}

// commit closes the output, which then has its name: an error that comes only then is one of writing.
func (o *output) commit() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil {
		if err := unix.Close(o.fd); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("close %s: %w", o.name, err)
		}
		return nil
	}
	if err := o.file.Commit(); err != nil {
		return err
	}
	return o.file.Close()
}

// abandon leaves what err kept from becoming whole under a name of its own, unless that is the image's, and says so with err.
func (o *output) abandon(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil || !o.file.Lasting() {
		return err
	}
	partial := o.file.Path() + ".partial"
	there, _ := os.Stat(partial)
	if info, failed := o.file.Stat(); failed != nil || info.Size() == 0 || os.SameFile(there, o.image) {
		o.file.Discard()
		return errors.Join(err, failed)
	}
	if failed := o.file.CommitTo(partial); failed != nil {
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
