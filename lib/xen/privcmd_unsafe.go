package xen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

var le = binary.LittleEndian

// Requests of Linux's xen/privcmd.h.
const (
	ioctlHypercall    = 0x00305000 // IOCTL_PRIVCMD_HYPERCALL
	ioctlMmapBatchV2  = 0x00205004 // IOCTL_PRIVCMD_MMAPBATCH_V2
	ioctlMmapResource = 0x00205007 // IOCTL_PRIVCMD_MMAP_RESOURCE
)

// hypercall is privcmd_hypercall_t.
type hypercall struct {
	_   structs.HostLayout
	op  uint64
	arg [5]uint64
}

// mmapBatchV2 is privcmd_mmapbatch_v2_t. Its two arrays are read and written by Linux, so any memory will do.
type mmapBatchV2 struct {
	_      structs.HostLayout
	num    uint32 // frames to map
	dom, _ uint16 // whose frames; padding
	addr   uint64 // where to, page-aligned, in this process
	arr    unsafe.Pointer
	err    unsafe.Pointer // num uint64 frame numbers in, num int32 negated errnos out
}

// mmapResource is struct privcmd_mmap_resource.
type mmapResource struct {
	_       structs.HostLayout
	dom, _  uint16
	typ     uint32
	id, idx uint32
	num     uint64
	addr    uint64
}

// ioctl is the system call itself: x/sys/unix's own forms drop the positive result. Linux keeps it in 32 bits. A hypercall
// does not wait but works. So this, like unview, is one that the runtime does not see: having its monitor take the
// processor away and fight for it afterwards costs a tenth of a save.
func ioctl(fd int, request uintptr, arg unsafe.Pointer) (int32, error) {
	r, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	if errno != 0 {
		return 0, errno
	}
	return int32(r), nil
}

// device is /dev/xen/privcmd, and /dev/xen/hypercall where there is one.
type device struct {
	privcmd int
	buffers int // -1: memory for hypercalls is anonymous and locked
}

// openDevice opens both.
func openDevice() (*device, error) {
	var err error
	d := &device{buffers: -1}
	for _, path := range []string{"/dev/xen/privcmd", "/proc/xen/privcmd"} {
		d.privcmd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENODEV) {
			err = wrapOpen(path, err)
			break
		}
		err = wrapOpen(path, err)
	}
	if err != nil {
		return nil, err
	}
	d.buffers, err = unix.Open("/dev/xen/hypercall", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		unix.Close(d.privcmd)
		return nil, wrapOpen("/dev/xen/hypercall", err)
	}
	return d, nil
}

func wrapOpen(path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: "open", Path: path, Err: err}
}

func (d *device) close() error {
	if d.buffers >= 0 {
		_ = unix.Close(d.buffers)
	}
	return unix.Close(d.privcmd)
}

// call makes a hypercall. What args point to must be memory of an arena.
func (d *device) call(op uint64, args ...uint64) (int32, error) {
	c := hypercall{op: op}
	copy(c.arg[:], args)
	return ioctl(d.privcmd, ioctlHypercall, unsafe.Pointer(&c))
}

// mapBatch maps frames of dom into mem, a fresh mapping of exactly their size, and sets errs to 0 or a negated errno
// for each. unix.ENOENT: some are paged out, and -ENOENT in errs.
func (d *device) mapBatch(dom guest.DomID, mem []byte, frames []uint64, errs []int32) error {
	b := mmapBatchV2{
		num: uint32(len(frames)), dom: uint16(dom), addr: address(mem),
		arr: unsafe.Pointer(unsafe.SliceData(frames)), err: unsafe.Pointer(unsafe.SliceData(errs)),
	}
	var pin runtime.Pinner // the kernel finds the arrays through b
	pin.Pin(b.arr)
	pin.Pin(b.err)
	defer pin.Unpin()
	_, err := ioctl(d.privcmd, ioctlMmapBatchV2, unsafe.Pointer(&b))
	return err
}

// mapResource maps num frames of a resource of dom's into mem.
func (d *device) mapResource(dom guest.DomID, typ, id, idx uint32, mem []byte) error {
	r := mmapResource{dom: uint16(dom), typ: typ, id: id, idx: idx, num: uint64(len(mem) / guest.PageSize), addr: address(mem)}
	_, err := ioctl(d.privcmd, ioctlMmapResource, unsafe.Pointer(&r))
	return err
}

// view is address space for frames of another domain. Nothing is there before mapBatch or mapResource.
func (d *device) view(pages int, prot guest.Prot) ([]byte, error) {
	p := unix.PROT_READ
	if prot == guest.ReadWrite {
		p |= unix.PROT_WRITE
	}
	size := pages * guest.PageSize
	mem, err := unix.MmapPtr(d.privcmd, 0, nil, uintptr(size), p, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap %d pages of privcmd: %w", pages, err)
	}
	return unsafe.Slice((*byte)(mem), size), nil
}

// unview gives up what view returned.
func unview(mem []byte) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_MUNMAP, uintptr(unsafe.Pointer(unsafe.SliceData(mem))), uintptr(len(mem)), 0); errno != 0 {
		return fmt.Errorf("munmap %d pages of privcmd: %w", len(mem)/guest.PageSize, errno)
	}
	return nil
}

// safe is zeroed memory that Xen itself can read and write: it cannot fault pages in.
func (d *device) safe(size int) ([]byte, error) {
	if d.buffers >= 0 {
		mem, err := unix.Mmap(d.buffers, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("mmap %d octets for hypercalls: %w", size, err)
		}
		return mem, nil
	}
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_LOCKED)
	if err != nil {
		return nil, fmt.Errorf("mmap %d octets of locked memory for hypercalls: %w", size, err)
	}
	_ = unix.Madvise(mem, unix.MADV_DONTFORK) // a fork would make its pages copy-on-write
	for i := 0; i < len(mem); i += guest.PageSize {
		mem[i] = 0
	}
	return mem, nil
}

// address is where b is, 0 for nothing.
func address(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
}

// words is mapped memory as words of 64 bits.
func words(b []byte) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
}

// bitmapOctets is a bitmap as Xen writes it: the machines Xen runs on are little-endian, too.
func bitmapOctets(b guest.Bitmap) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(b))), len(b)*8)
}
