package machine

import (
	"testing"
	"unsafe"
)

// The numbers are what a C compiler makes of Linux 6.7's headers.
func TestABI(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"sizeof(struct uffdio_api)", unsafe.Sizeof(uffdioAPI{}), 24},
		{"sizeof(struct uffdio_register)", unsafe.Sizeof(uffdioRegister{}), 32},
		{"sizeof(struct uffdio_writeprotect)", unsafe.Sizeof(uffdioWriteprotect{}), 24},
		{"sizeof(struct page_region)", unsafe.Sizeof(pageRegion{}), 24},
		{"sizeof(struct pm_scan_arg)", unsafe.Sizeof(pmScanArg{}), 96},
		{"offsetof(struct pm_scan_arg, walk_end)", unsafe.Offsetof(pmScanArg{}.walkEnd), 32},
		{"offsetof(struct pm_scan_arg, vec)", unsafe.Offsetof(pmScanArg{}.vec), 40},
		{"offsetof(struct pm_scan_arg, category_mask)", unsafe.Offsetof(pmScanArg{}.mask), 72},
		{"offsetof(struct pm_scan_arg, return_mask)", unsafe.Offsetof(pmScanArg{}.returns), 88},
		{"UFFDIO_API", uffdioAPICall, 3<<30 | 24<<16 | 0xAA<<8 | 0x3F},
		{"UFFDIO_REGISTER", uffdioRegisterCall, 3<<30 | 32<<16 | 0xAA<<8},
		{"UFFDIO_WRITEPROTECT", uffdioWriteprotectCall, 3<<30 | 24<<16 | 0xAA<<8 | 6},
		{"PAGEMAP_SCAN", pagemapScan, 3<<30 | 96<<16 | 'f'<<8 | 16},
	} {
		if c.got != c.want {
			t.Errorf("%s is %#x, want %#x", c.name, c.got, c.want)
		}
	}
}
