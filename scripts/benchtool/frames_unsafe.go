package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// moveFrames writes or reads frames of memory, in order, until all of them are through.
func moveFrames(call uintptr, fd int, memory []byte, frames []int) error {
	vec := make([]unix.Iovec, len(frames))
	for i, f := range frames {
		vec[i].Base = &memory[f*guest.PageSize]
		vec[i].SetLen(guest.PageSize)
	}
	for len(vec) > 0 {
		n, _, errno := unix.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(&vec[0])), uintptr(len(vec)))
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return errno
		case n == 0:
			return fmt.Errorf("the other end is gone")
		}
		for left := int(n); left > 0; {
			if size := int(vec[0].Len); left < size {
				vec[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(vec[0].Base), left))
				vec[0].SetLen(size - left)
				break
			} else {
				left -= size
			}
			vec = vec[1:]
		}
	}
	return nil
}
