package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sys/unix"
)

// input is an open descriptor.
type input struct {
	fd   int
	ours bool // opened here
}

// openInput opens what -i names: a descriptor by its number, or a file. A named pipe whose writer is not there yet does not
// block here, so that a signal still ends the wait for it.
func openInput(name string) (*input, error) {
	if fd, err := strconv.ParseUint(name, 10, 31); err == nil {
		return &input{fd: int(fd)}, nil
	}
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, unread(name, err)
	}
	return &input{fd: fd, ours: true}, nil
}

func (in *input) close() {
	if in.ours {
		_ = unix.Close(in.fd)
	}
}

// ReadAt reads from a regular file without moving its offset.
func (in *input) ReadAt(p []byte, off int64) (int, error) {
	for done := 0; ; {
		n, err := unix.Pread(in.fd, p[done:], off+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return done, fmt.Errorf("read descriptor %d: %w", in.fd, err)
		case n == 0:
			return done, io.EOF
		}
		if done += n; done == len(p) {
			return done, nil
		}
	}
}
