package transport

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iovec is buffers on their way through readv or writev. x/sys makes a new array for each call; a batch of pages takes
// several calls, so this one keeps its array and moves along it.
type iovec struct {
	all  []unix.Iovec
	left []unix.Iovec // part of all
	bufs [][]byte     // what all points into
}

// set begins with bufs, of which empty ones are left out.
func (v *iovec) set(bufs [][]byte) {
	v.all, v.bufs = v.all[:0], bufs
	for _, b := range bufs {
		if len(b) > 0 {
			e := unix.Iovec{Base: unsafe.SliceData(b)}
			e.SetLen(len(b))
			v.all = append(v.all, e)
		}
	}
	v.left = v.all
}

// done reports whether all octets are through.
func (v *iovec) done() bool { return len(v.left) == 0 }

// call does one readv or writev of what is left, as much as one takes, and returns how many octets went through.
func (v *iovec) call(trap uintptr, fd int) (int, error) {
	n, _, errno := unix.Syscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&v.left[0])), uintptr(min(len(v.left), maxVec)))
	runtime.KeepAlive(v.bufs)
	if errno != 0 {
		return 0, errno
	}
	v.advance(int(n))
	return int(n), nil
}

// peek copies what is left to dst, as much as fits, and returns how many octets that is.
func (v *iovec) peek(dst []byte) int {
	n := 0
	for _, e := range v.left {
		if n += copy(dst[n:], unsafe.Slice(e.Base, e.Len)); n == len(dst) {
			break
		}
	}
	runtime.KeepAlive(v.bufs)
	return n
}

// poke copies src to what is left, which must have room for it.
func (v *iovec) poke(src []byte) {
	for _, e := range v.left {
		if src = src[copy(unsafe.Slice(e.Base, e.Len), src):]; len(src) == 0 {
			break
		}
	}
	runtime.KeepAlive(v.bufs)
}

// size is how many octets are left.
func (v *iovec) size() int {
	n := 0
	for _, e := range v.left {
		n += int(e.Len)
	}
	return n
}

// advance drops n octets from the front.
func (v *iovec) advance(n int) {
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
