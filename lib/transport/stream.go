// Package transport moves a stream's octets through a descriptor that somebody else made: file, pipe or socket, blocking
// or not, at whatever offset. Its flags are kept, it is never sought, and nothing is read ahead.
package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// maxVec is how many buffers one readv or writev takes (IOV_MAX of Linux).
const maxVec = 1024

// PipeSize is what a pipe is enlarged to where that is allowed, in octets: the default limit for the unprivileged.
const PipeSize = 1 << 20

// ErrTerminal is what Check returns for a terminal.
var ErrTerminal = errors.New("is a terminal: a stream goes through a pipe, a socket or a file")

// Check refuses descriptors that cannot carry a stream: closed ones, folders and terminals.
func Check(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("descriptor %d: %w", fd, err)
	}
	if wasClosed(fd, &st) {
		return fmt.Errorf("descriptor %d: %w", fd, errClosed)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("descriptor %d: %w", fd, unix.EISDIR)
	}
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		return fmt.Errorf("descriptor %d %w", fd, ErrTerminal)
	}
	return nil
}

var errClosed = errors.New("is closed, or /dev/null for reading and writing")

// wasClosed reports whether fd is one of the first three descriptors and was closed when this process began. Go's runtime
// has opened /dev/null there since, for reading and writing; a shell's </dev/null is for reading, its >/dev/null for writing.
func wasClosed(fd int, st *unix.Stat_t) bool {
	if fd > 2 || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == unix.O_RDWR
}

// Given refuses descriptors that this process was not given when it began: closed ones, and those that it, or Go's runtime,
// opened since, which are closed on exec. So it must be asked before CloseOnExec makes others that too.
func Given(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("descriptor %d: %w", fd, err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 || wasClosed(fd, &st) {
		return fmt.Errorf("descriptor %d: %w", fd, errClosed)
	}
	return nil
}

// CheckGiven is Check of a descriptor that this process must have been given.
func CheckGiven(fd int) error {
	if err := Given(fd); err != nil {
		return err
	}
	return Check(fd)
}

// SameFile reports whether the descriptor is the file that st is of: what is written to one gets into the other. Devices,
// such as /dev/null, are not asked about.
func SameFile(fd int, st *unix.Stat_t) bool {
	var own unix.Stat_t
	return unix.Fstat(fd, &own) == nil && own.Dev == st.Dev && own.Ino == st.Ino && st.Mode&unix.S_IFMT != unix.S_IFCHR
}

// fileType is S_IFMT's part of the descriptor's mode.
func fileType(fd int) uint32 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Mode & unix.S_IFMT
}

// unaligned reports whether err is that of a file with O_DIRECT which takes nothing but whole blocks, as a stream's records are not.
// From then on it is without.
func unaligned(fd int, err error) bool {
	if !errors.Is(err, unix.EINVAL) {
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_DIRECT == 0 {
		return false
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_DIRECT)
	return err == nil
}

// IsRegular reports whether the descriptor is a regular file.
func IsRegular(fd int) bool { return fileType(fd) == unix.S_IFREG }

// growPipe enlarges a pipe to PipeSize. That it may not is no error: a smaller pipe works.
func growPipe(fd int) {
	if fileType(fd) != unix.S_IFIFO {
		return
	}
	if n, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil && n < PipeSize {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, PipeSize)
	}
}

// wait blocks until fd is ready for events or wake, if it is not negative, becomes readable; then it returns
// os.ErrDeadlineExceeded. After limit, unless that is 0, it returns errNothing.
func wait(fd int, events int16, wake int, limit time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(wake), Events: unix.POLLIN}}
	for end := time.Now().Add(limit); ; {
		left := -1
		if limit > 0 {
			left = int(max(0, time.Until(end)+time.Millisecond-1) / time.Millisecond)
		}
		n, err := unix.Poll(fds, left)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return errNothing
		case fds[1].Revents != 0:
			return os.ErrDeadlineExceeded
		default:
			return nil // POLLHUP and POLLERR too: the read or write itself says what it is
		}
	}
}

var errNothing = errors.New("nothing happened")

// wakeUp makes an eventfd that is readable once ctx is done; -1 if it never is. It goes with its owner.
func wakeUp[T any](ctx context.Context, owner *T) (int, error) {
	if ctx.Done() == nil {
		return -1, nil
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("eventfd: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	runtime.AddCleanup(owner, func(wake int) {
		if stop() {
			_ = unix.Close(wake)
		}
	}, wake)
	return wake, nil
}

// Reader reads a descriptor. A read that waits for octets ends when the context does.
type Reader struct {
	ctx  context.Context
	fd   int
	poll bool // a read may wait: ask first, so that it can be cancelled
	wake int  // eventfd, readable once ctx is done
	iov  iovec
	copy []byte // for what cannot be read to its place; nil until that was met
}

// NewReader returns a Reader of fd, for as long as ctx lasts.
func NewReader(ctx context.Context, fd int) (*Reader, error) {
	if err := Check(fd); err != nil {
		return nil, err
	}
	growPipe(fd)
	r := &Reader{ctx: ctx, fd: fd, poll: !IsRegular(fd)}
	var err error
	r.wake, err = wakeUp(ctx, r)
	return r, err
}

// FD is the descriptor.
func (r *Reader) FD() int { return r.fd }

// Read reads what is there, at most len(p) octets.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return r.read(func() (int, error) { return unix.Read(r.fd, p) })
}

func (r *Reader) read(call func() (int, error)) (int, error) {
	for {
		if r.poll {
			if err := wait(r.fd, unix.POLLIN, r.wake, 0); err != nil {
				return 0, r.cause(err)
			}
		} else if r.ctx.Err() != nil {
			return 0, context.Cause(r.ctx)
		}
		n, err := call()
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), unaligned(r.fd, err):
			continue
		case err != nil:
			return 0, fmt.Errorf("read descriptor %d: %w", r.fd, err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

func (r *Reader) cause(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	return fmt.Errorf("poll descriptor %d: %w", r.fd, err)
}

// ReadVec fills the buffers in order. It returns how many octets came; fewer than all of them only with an error, which
// is io.EOF at the end of the input.
func (r *Reader) ReadVec(bufs [][]byte) (int, error) {
	total := 0
	for r.iov.set(bufs); !r.iov.done(); {
		n, err := r.readSome()
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// readSome reads some of what is left: to its place, unless that has failed before. Like a Writer's, it may be memory that
// a file refuses.
func (r *Reader) readSome() (int, error) {
	if r.copy == nil {
		n, err := r.read(func() (int, error) { return r.iov.call(unix.SYS_READV, r.fd) })
		if !errors.Is(err, unix.EFAULT) {
			return n, err
		}
		r.copy = make([]byte, copySize)
	}
	part := r.copy[:min(r.iov.size(), copySize)] // and not an octet more
	n, err := r.read(func() (int, error) { return unix.Read(r.fd, part) })
	if err != nil {
		return 0, err
	}
	if err := guest.Access(func() error { r.iov.poke(part[:n]); return nil }); err != nil {
		return 0, fmt.Errorf("read descriptor %d: %w", r.fd, err)
	}
	r.iov.advance(n)
	return n, nil
}
