package machine

import (
	"sync/atomic"
	"unsafe"
)

// words is mapped memory as 64-bit words. b must be page-aligned, as a mapping is.
func words(b []byte) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
}

// octets is the inverse of words, up to the mapping's last page.
func octets(w []uint64) []byte {
	if w == nil {
		return nil
	}
	n := (len(w)*8 + 4095) &^ 4095
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), n)
}

// table is a page as the 512 entries of a page table.
func table(page []byte) *[512]uint64 {
	return (*[512]uint64)(unsafe.Pointer(unsafe.SliceData(page[:4096])))
}

// Clients read page tables while guests have them changed: entries are read and written whole.

func readPTE(t *[512]uint64, i int) uint64     { return atomic.LoadUint64(&t[i]) }
func writePTE(t *[512]uint64, i int, e uint64) { atomic.StoreUint64(&t[i], e) }
