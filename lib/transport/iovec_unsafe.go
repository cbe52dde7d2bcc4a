package transport

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iovec is buffers on their way through readv or writev. x/sys makes a new array for each call; a batch of pages takes
// several calls, so this one keeps its array and moves along it. Buffers that touch, as pages of one mapping do, are one
// element: a batch is then a single call, and the kernel copies across pages.
type iovec struct {
	all  []unix.Iovec
	left []unix.Iovec // part of all
	bufs [][]byte     // what all points into
	sent int          // octets that are through
}

// set begins with bufs, of which empty ones are left out.
func (v *iovec) set(bufs [][]byte) {
	v.all, v.bufs, v.sent = v.all[:0], bufs, 0
	end := uintptr(0) // of the last element
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		if start := uintptr(unsafe.Pointer(unsafe.SliceData(b))); start == end {
			last := &v.all[len(v.all)-1]
			last.SetLen(int(last.Len) + len(b))
		} else {
			v.all = append(v.all, unix.Iovec{Base: unsafe.SliceData(b), Len: uint64(len(b))})
			end = start
		}
		end += uintptr(len(b))
	}
	v.left = v.all
}

// done reports whether all octets are through.
func (v *iovec) done() bool { return len(v.left) == 0 }

// call does one readv or writev of what is left, as much as one takes, and returns how many octets went through.
func (v *iovec) call(trap uintptr, fd int) (int, error) {
	n, _, errno := unix.Syscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&v.left[0])), uintptr(min(len(v.left), maxVec)))
	return v.went(n, errno)
}

// send is call for a socket, and waits for nothing: EAGAIN where it is full.
func (v *iovec) send(fd int) (int, error) {
	m := unix.Msghdr{Iov: &v.left[0]}
	m.SetIovlen(min(len(v.left), maxVec))
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return v.went(n, errno)
}

// went is what a system call has returned.
func (v *iovec) went(n uintptr, errno unix.Errno) (int, error) {
	runtime.KeepAlive(v.bufs)
	if errno != 0 {
		return 0, errno
	}
	v.advance(int(n))
	return int(n), nil
}

// peek copies what is left to dst, as much as fits, and returns how many octets that is.
func (v *iovec) peek(dst []byte) int {
	return v.each(dst, func(part, buf []byte) int { return copy(part, buf) })
}

// poke copies src to what is left, which must have room for it.
func (v *iovec) poke(src []byte) {
	v.each(src, func(part, buf []byte) int { return copy(buf, part) })
}

// each holds what is left against b, buffer by buffer: move returns how much it moved. The sum is the result.
func (v *iovec) each(b []byte, move func(part, buf []byte) int) int {
	skip, n := v.sent, 0
	for _, buf := range v.bufs {
		if skip >= len(buf) {
			skip -= len(buf)
			continue
		}
		n += move(b[n:], buf[skip:])
		skip = 0
		if n == len(b) {
			break
		}
	}
	return n
}

// size is how many octets are left.
func (v *iovec) size() int {
	n := 0
	for _, e := range v.left {
		n += int(e.Len)
	}
	return n
}

// advance drops n octets from the front. An element may be of buffers that were allocated apart, which bufs keeps alive:
// checkptr knows only one of them.
//
//go:nocheckptr
func (v *iovec) advance(n int) {
	v.sent += n
	for n > 0 {
		first := &v.left[0]
		if size := int(first.Len); n < size {
			first.Base = (*byte)(unsafe.Add(unsafe.Pointer(first.Base), n))
			first.SetLen(size - n)
			return
		} else {
			n -= size
		}
		v.left = v.left[1:]
	}
}
