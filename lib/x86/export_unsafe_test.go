package x86

import (
	"unsafe"

	"xenferry/lib/guest"
)

// Words is b as a table of machine frames.
func Words(b []byte) guest.M2P {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
}
