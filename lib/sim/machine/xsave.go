package machine

import "golang.org/x/sys/unix"

// xsaveEnd is the end of each XSAVE component in the standard format, from the image's start, in octets, as most
// processors lay them out; 0 for those that this host does not have.
var xsaveEnd = [64]int{0: 576, 1: 576, 2: 832, 3: 1024, 4: 1088, 5: 1152, 6: 1664, 7: 2688, 9: 2696}

// Offsets in what XEN_DOMCTL_setvcpuextstate takes, and in the XSAVE image behind its first 16 octets.
const (
	xsaveImage = 16
	xsaveMin   = 576
	xcompBV    = 512 + 8
)

// checkXSave judges xcr0, xcr0_accum and, beyond 16 octets, the image of all components in xcr0_accum.
func checkXSave(x []byte) error {
	if len(x) < xsaveImage {
		return refuse(unix.EINVAL, "%d octets of XSAVE state are fewer than 16", len(x))
	}
	xcr0, accum := le.Uint64(x), le.Uint64(x[8:])
	if len(x) == xsaveImage {
		return nil
	}
	size := xsaveMin
	for i, end := range xsaveEnd {
		if accum>>i&1 == 0 {
			continue
		}
		if end == 0 {
			return refuse(unix.EINVAL, "XSAVE component %d is not there on this host", i)
		}
		size = max(size, end)
	}
	switch {
	case xcr0&1 == 0 || xcr0&^accum != 0:
		return refuse(unix.EINVAL, "xcr0 %#x does not go with xcr0_accum %#x", xcr0, accum)
	case len(x) != xsaveImage+size:
		return refuse(unix.EINVAL, "an XSAVE image of components %#x has %d octets, this one %d", accum, size, len(x)-xsaveImage)
	case le.Uint64(x[xsaveImage+xcompBV:])>>63 != 0:
		return refuse(unix.EOPNOTSUPP, "the XSAVE image is compacted")
	}
	return nil
}
