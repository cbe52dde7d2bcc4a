package xen

import (
	"testing"
	"unsafe"
)

// TestABI holds sizes, offsets and numbers to what a C compiler printed for Xen's public headers and Linux's xen/privcmd.h.
func TestABI(t *testing.T) {
	var (
		hc hypercall
		mb mmapBatchV2
		mr mmapResource
	)
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"IOCTL_PRIVCMD_HYPERCALL", ioctlHypercall, 0x305000},
		{"IOCTL_PRIVCMD_MMAPBATCH_V2", ioctlMmapBatchV2, 0x205004},
		{"IOCTL_PRIVCMD_MMAP_RESOURCE", ioctlMmapResource, 0x205007},
		{"privcmd_hypercall", unsafe.Sizeof(hc), 48},
		{"privcmd_hypercall.arg", unsafe.Offsetof(hc.arg), 8},
		{"privcmd_mmapbatch_v2", unsafe.Sizeof(mb), 32},
		{"privcmd_mmapbatch_v2.dom", unsafe.Offsetof(mb.dom), 4},
		{"privcmd_mmapbatch_v2.addr", unsafe.Offsetof(mb.addr), 8},
		{"privcmd_mmapbatch_v2.arr", unsafe.Offsetof(mb.arr), 16},
		{"privcmd_mmapbatch_v2.err", unsafe.Offsetof(mb.err), 24},
		{"privcmd_mmap_resource", unsafe.Sizeof(mr), 32},
		{"privcmd_mmap_resource.type", unsafe.Offsetof(mr.typ), 4},
		{"privcmd_mmap_resource.id", unsafe.Offsetof(mr.id), 8},
		{"privcmd_mmap_resource.idx", unsafe.Offsetof(mr.idx), 12},
		{"privcmd_mmap_resource.num", unsafe.Offsetof(mr.num), 16},
		{"privcmd_mmap_resource.addr", unsafe.Offsetof(mr.addr), 24},
	} {
		if c.got != c.want {
			t.Errorf("%s is %#x, want %#x", c.name, c.got, c.want)
		}
	}
}
