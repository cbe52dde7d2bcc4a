package sim

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// octets is a list of 64-bit words as it is on the wire: the hosts we run on are little-endian, too.
func octets[T ~uint64](w []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), len(w)*8)
}

// words is the inverse of octets. b must be aligned to 8 octets, as received bodies and mappings are.
func words[T ~uint64](b []byte) ([]T, error) {
	if len(b)%8 != 0 {
		return nil, fmt.Errorf("%d octets are not a list of frame numbers", len(b))
	}
	if len(b) == 0 {
		return nil, nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8), nil
}

// typeOctets is a list of page types as octets.
func typeOctets[T ~uint8](t []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(t))), len(t))
}

// touch reads from a page, if there is one, with a load that is not optimised away.
func touch(page []byte) {
	if page != nil {
		atomic.LoadUint32((*uint32)(unsafe.Pointer(unsafe.SliceData(page))))
	}
}
