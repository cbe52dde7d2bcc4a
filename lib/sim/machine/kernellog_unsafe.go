package machine

import (
	"fmt"
	"os"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// kernelLog has the kernel write-protect a mapping and let go of the protection of each page by itself at the first
// write (userfaultfd in its asynchronous mode), so that PAGEMAP_SCAN finds what was written. Linux 6.7; it needs no
// privilege, as faults of the kernel itself need not be delivered.
type kernelLog struct {
	uffd    int
	pagemap *os.File
	mem     []byte
	begun   bool
	regions [4096]pageRegion
}

// uffdioAPI, uffdioRange and uffdioRegister are struct uffdio_api, uffdio_range and uffdio_register of Linux's
// linux/userfaultfd.h; uffdioWriteprotect is struct uffdio_writeprotect.
type (
	uffdioAPI struct {
		_                     structs.HostLayout
		api, features, ioctls uint64
	}
	uffdioRegister struct {
		_                        structs.HostLayout
		start, len, mode, ioctls uint64
	}
	uffdioWriteprotect struct {
		_                structs.HostLayout
		start, len, mode uint64
	}
)

// pageRegion and pmScanArg are struct page_region and struct pm_scan_arg of Linux's linux/fs.h.
type (
	pageRegion struct {
		_                      structs.HostLayout
		start, end, categories uint64
	}
	pmScanArg struct {
		_                            structs.HostLayout
		size, flags                  uint64
		start, end, walkEnd          uint64
		vec                          unsafe.Pointer
		vecLen, maxPages             uint64
		inverted, mask, any, returns uint64
	}
)

const (
	uffdUserModeOnly = 1 // UFFD_USER_MODE_ONLY

	uffdAPI                  = 0xAA
	uffdFeatureWPShmem       = 1 << 12 // UFFD_FEATURE_WP_HUGETLBFS_SHMEM
	uffdFeatureWPUnpopulated = 1 << 13
	uffdFeatureWPAsync       = 1 << 15
	uffdFeatures             = uffdFeatureWPShmem | uffdFeatureWPUnpopulated | uffdFeatureWPAsync

	uffdioAPICall          = 0xC018AA3F // UFFDIO_API
	uffdioRegisterCall     = 0xC020AA00 // UFFDIO_REGISTER
	uffdioWriteprotectCall = 0xC018AA06 // UFFDIO_WRITEPROTECT
	uffdModeWP             = 2          // UFFDIO_REGISTER_MODE_WP
	uffdWriteprotectModeWP = 1          // UFFDIO_WRITEPROTECT_MODE_WP

	pagemapScan        = 0xC0606610 // PAGEMAP_SCAN
	pmScanWPMatching   = 1
	pmScanCheckWPAsync = 2
	pageIsWritten      = 2 // PAGE_IS_WRITTEN
)

// newKernelLog watches mem, which must be a mapping. Nothing is told before begin.
func newKernelLog(mem []byte) (_ *kernelLog, err error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|uffdUserModeOnly, 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("userfaultfd: %w", errno)
	}
	k := &kernelLog{uffd: int(fd), mem: mem}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	api := uffdioAPI{api: uffdAPI, features: uffdFeatures}
	if _, err := ioctl(k.uffd, uffdioAPICall, unsafe.Pointer(&api)); err != nil {
		return nil, fmt.Errorf("UFFDIO_API with asynchronous write-protection: %w", err)
	}
	start, size := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))), uint64(len(mem))
	reg := uffdioRegister{start: start, len: size, mode: uffdModeWP}
	if _, err := ioctl(k.uffd, uffdioRegisterCall, unsafe.Pointer(&reg)); err != nil {
		return nil, fmt.Errorf("UFFDIO_REGISTER: %w", err)
	}
	if k.pagemap, err = os.Open("/proc/self/pagemap"); err != nil {
		return nil, err
	}
	return k, k.scan(1, func(_, _ guest.MFN) {}) // kernels of 5.19 to 6.6 have userfaultfd, but no PAGEMAP_SCAN
}

// begin write-protects all pages when the first log begins: before, nobody asks, and guests need not pay. Pages that
// are not there yet are protected, too, so that reading one does not count as a write.
func (k *kernelLog) begin() error {
	if k.begun {
		return nil
	}
	wp := uffdioWriteprotect{
		start: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(k.mem)))), len: uint64(len(k.mem)),
		mode: uffdWriteprotectModeWP,
	}
	if _, err := ioctl(k.uffd, uffdioWriteprotectCall, unsafe.Pointer(&wp)); err != nil {
		return fmt.Errorf("UFFDIO_WRITEPROTECT: %w", err)
	}
	k.begun = true
	return nil
}

func (k *kernelLog) close() {
	if k.pagemap != nil {
		k.pagemap.Close()
	}
	unix.Close(k.uffd)
}

// scan calls share with each run of the first pages that were written since the last scan; each is protected again
// before it is told.
func (k *kernelLog) scan(pages int, share func(from, to guest.MFN)) error {
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(k.mem))))
	end := base + uint64(pages)*guest.PageSize
	for at := base; at < end; {
		arg := pmScanArg{
			flags: pmScanWPMatching | pmScanCheckWPAsync,
			start: at, end: end,
			vec: unsafe.Pointer(&k.regions), vecLen: uint64(len(k.regions)),
			mask: pageIsWritten, returns: pageIsWritten,
		}
		arg.size = uint64(unsafe.Sizeof(arg))
		n, err := ioctl(int(k.pagemap.Fd()), pagemapScan, unsafe.Pointer(&arg))
		if err != nil {
			return fmt.Errorf("PAGEMAP_SCAN: %w", err)
		}
		for _, r := range k.regions[:n] {
			share(guest.MFN((r.start-base)/guest.PageSize), guest.MFN((r.end-base)/guest.PageSize))
		}
		at = arg.walkEnd
	}
	return nil
}

func ioctl(fd int, request uint, arg unsafe.Pointer) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}
