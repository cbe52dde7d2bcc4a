package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// copyBuffers are for CopyTo where the kernel cannot move octets by itself.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// CopyTo moves n octets to w, by splice(2) or copy_file_range(2) where w is a Writer and the descriptors allow it, else
// through a buffer. It returns how many went: all, or fewer with an error, which is io.EOF at the end of the input. It
// waits no longer than the Reader's context lasts.
func (r *Reader) CopyTo(w io.Writer, n uint64) (uint64, error) {
	done := uint64(0)
	if dst, ok := w.(*Writer); ok {
		if move := r.mover(dst); move != nil {
			var err error
			if done, err = r.moveTo(dst, n, move); !errors.Is(err, errors.ErrUnsupported) {
				return done, err
			}
		}
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for done < n {
		part := (*buf)[:min(n-done, uint64(len(*buf)))]
		got, err := r.Read(part)
		if err != nil {
			return done, err
		}
		put, err := w.Write(part[:got])
		done += uint64(put)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// mover is the system call that moves at most n octets from r to w, nil if there is none for such a pair.
func (r *Reader) mover(w *Writer) func(n int) (int, error) {
	from, to := fileType(r.fd), fileType(w.fd)
	switch {
	case from == unix.S_IFIFO || to == unix.S_IFIFO:
		return func(n int) (int, error) {
			m, err := unix.Splice(r.fd, nil, w.fd, nil, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			return int(m), err
		}
	case from == unix.S_IFREG && to == unix.S_IFREG:
		return func(n int) (int, error) { return unix.CopyFileRange(r.fd, nil, w.fd, nil, n, 0) }
	}
	return nil
}

// moveTo moves n octets with move. errors.ErrUnsupported: the rest must go another way.
func (r *Reader) moveTo(w *Writer, n uint64, move func(n int) (int, error)) (done uint64, err error) {
	const most = 1 << 30 // what a system call takes at least
	for done < n {
		if r.poll {
			if err := wait(r.fd, unix.POLLIN, r.wake, 0); err != nil {
				return done, r.cause(err)
			}
		} else if r.ctx.Err() != nil {
			return done, context.Cause(r.ctx)
		}
		m, err := move(int(min(n-done, most)))
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN): // there is input: it is w that is full
			if err := wait(w.fd, unix.POLLOUT, r.wake, 0); err != nil {
				return done, r.cause(err)
			}
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EBADF), errors.Is(err, unix.EXDEV),
			errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
			return done, errors.ErrUnsupported // such as a file opened to append, or two file systems
		case err != nil:
			return done, fmt.Errorf("move from descriptor %d to %d: %w", r.fd, w.fd, err)
		case m == 0:
			return done, errors.ErrUnsupported // the end, or a file that has no page cache: read(2) tells
		}
		done += uint64(max(m, 0))
	}
	return done, nil
}
