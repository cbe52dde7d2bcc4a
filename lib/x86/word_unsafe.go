package x86

import (
	"sync/atomic"
	"unsafe"
)

// loadWord64 reads the i-th 8-octet word of a page that its guest may write to meanwhile, at once. Pages are aligned to
// their size, and hosts are little-endian.
func loadWord64(page []byte, i int) uint64 {
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&page[i*8 : i*8+8][0])))
}

// loadWord32 is loadWord64 for 4 octets.
func loadWord32(page []byte, i int) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&page[i*4 : i*4+4][0])))
}
