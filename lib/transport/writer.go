package transport

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// Writer writes to a descriptor. Some pin the memory that they are given, such as a file on 9p without a cache. Memory
// that cannot be pinned, as are pages mapped from another domain, is EFAULT to them, though it can be read: then the
// Writer writes a copy.
type Writer struct {
	fd     int
	ctx    context.Context // nil: a write waits as long as it takes
	wake   int             // eventfd, readable once ctx is done
	socket bool            // written so that the call itself does not wait
	limit  time.Duration   // socket: how long it may take nothing; 0 for ever
	iov    iovec
	copy   []byte // for what cannot be written from its place; nil until that was met
}

// NewWriter returns a Writer to fd. A socket that has a time limit for sending (SO_SNDTIMEO) may take nothing for so long, then
// a write fails with ETIMEDOUT.
func NewWriter(fd int) (*Writer, error) {
	if err := Check(fd); err != nil {
		return nil, err
	}
	growPipe(fd)
	w := &Writer{fd: fd, wake: -1}
	if t, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO); err == nil {
		w.limit = time.Duration(t.Nano())
	}
	// What the kernel does at the limit cannot be told from a signal, where a part was written.
	w.socket = w.limit > 0
	return w, nil
}

// pipeBuf is PIPE_BUF of Linux, in octets: a pipe that is ready to be written takes so many at once.
const pipeBuf = 4096

// NewWriterUntil returns a Writer to fd for as long as ctx lasts: a write that waits ends with it, and nothing is written
// afterwards. For that a pipe, of which it must be the one writer, gets small portions: it is for what is around a guest,
// not for its pages. Whoever shares the descriptor sees no change of it, as O_NONBLOCK would be.
func NewWriterUntil(ctx context.Context, fd int) (*Writer, error) {
	w, err := NewWriter(fd)
	if err != nil {
		return nil, err
	}
	w.ctx = ctx
	switch fileType(fd) {
	case unix.S_IFSOCK:
		w.socket = true
	case unix.S_IFIFO:
		w.copy = make([]byte, pipeBuf)
	}
	w.wake, err = wakeUp(ctx, w)
	return w, err
}

// FD is the descriptor.
func (w *Writer) FD() int { return w.fd }

// Write writes all of p.
func (w *Writer) Write(p []byte) (int, error) { return w.WriteVec([][]byte{p}) }

// WriteVec writes all of the buffers in order.
func (w *Writer) WriteVec(bufs [][]byte) (int, error) {
	total := 0
	for w.iov.set(bufs); !w.iov.done(); {
		n, err := w.writeSome()
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// copySize is how much is copied for one write, in octets.
const copySize = 256 << 10

// writeSome writes some of what is left: from its place, unless that has failed before.
func (w *Writer) writeSome() (int, error) {
	if w.copy == nil {
		n, err := w.write(w.vector)
		if !errors.Is(err, unix.EFAULT) {
			return n, err
		}
		w.copy = make([]byte, copySize)
	}
	var part []byte
	if err := guest.Access(func() error {
		part = w.copy[:w.iov.peek(w.copy)]
		return nil
	}); err != nil {
		return 0, fmt.Errorf("write descriptor %d: %w", w.fd, err)
	}
	n, err := w.write(func() (int, error) {
		if w.socket {
			return unix.SendmsgN(w.fd, part, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		return unix.Write(w.fd, part)
	})
	w.iov.advance(n)
	return n, err
}

// vector writes from its place as much of what is left as one call takes.
func (w *Writer) vector() (int, error) {
	if w.socket {
		return w.iov.send(w.fd)
	}
	return w.iov.call(unix.SYS_WRITEV, w.fd)
}

func (w *Writer) write(call func() (int, error)) (int, error) {
	for {
		if w.ctx != nil {
			if err := w.wait(); err != nil {
				return 0, err
			}
		}
		n, err := call()
		switch {
		case errors.Is(err, unix.EINTR), unaligned(w.fd, err):
			continue
		case errors.Is(err, unix.EAGAIN):
			if err := w.wait(); err != nil {
				return 0, err
			}
			continue
		case err != nil && w.ctx != nil && w.ctx.Err() != nil: // whoever ends ctx may break the link, too
			return 0, context.Cause(w.ctx)
		case err != nil:
			return 0, fmt.Errorf("write descriptor %d: %w", w.fd, err)
		}
		return n, nil
	}
}

// wait waits until the descriptor can be written.
func (w *Writer) wait() error {
	err := wait(w.fd, unix.POLLOUT, w.wake, w.limit)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNothing):
		return fmt.Errorf("write descriptor %d: the other side took nothing for %v: %w", w.fd, w.limit, unix.ETIMEDOUT)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return context.Cause(w.ctx)
	}
	return fmt.Errorf("poll descriptor %d: %w", w.fd, err)
}

// Sync makes what was written to a regular file lasting.
func (w *Writer) Sync() error {
	if err := unix.Fsync(w.fd); err != nil {
		return fmt.Errorf("fsync descriptor %d: %w", w.fd, err)
	}
	return nil
}
