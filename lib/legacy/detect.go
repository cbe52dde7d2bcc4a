package legacy

import (
	"fmt"
	"math"

	"xenferry/lib/record"
	"xenferry/lib/xcstream"
	"xenferry/lib/xlstream"
)

// DetectSize is how many octets Detect looks at. No whole image is shorter.
const DetectSize = 28

// maxPFNs is the largest p2m_size that Xen 4.5 saves.
const maxPFNs = 0x0fffffff

// Detect tells how an image is laid out by its first DetectSize octets, headers of xl and xend taken off. certain: they
// can belong to no other layout that a writer makes; if not, they are merely like no other. The error is record.ErrValue
// for what is no legacy image, and record.ErrTruncated for too few octets.
func Detect(head []byte) (l Layout, certain bool, err error) {
	if len(head) < DetectSize {
		return l, false, fmt.Errorf("%w: %d octets are not an image", record.ErrTruncated, len(head))
	}
	low, next := le.Uint32(head), le.Uint32(head[4:])
	first := ChunkID(le.Uint32(head[8:])) // of an HVM image of width 64
	switch is := record.Foreign(head); {
	case le.Uint64(head) == math.MaxUint64:
		return l, false, fmt.Errorf("%w: a libxc stream of version 2 or 3, which needs no conversion", record.ErrValue)
	case string(head[:8]) == xlstream.Ident:
		return l, false, fmt.Errorf("%w: a libxl stream, which needs no conversion", record.ErrValue)
	case is != "":
		return l, false, fmt.Errorf("%w: not a legacy image: it is %s", record.ErrValue, is)
	case le.Uint64(head[8:]) == math.MaxUint64 && isBlock(head[20:]):
		return Layout{Width64, xcstream.DomainPV}, true, nil
	case next == math.MaxUint32:
		return Layout{Width32, xcstream.DomainPV}, isBlock(head[12:]), nil
	case next != 0 && ChunkID(next).Known() && low <= maxPFNs:
		return Layout{Width32, xcstream.DomainHVM}, true, nil
	case next == 0 && le.Uint64(head[8:]) == math.MaxUint64:
		return Layout{Width64, xcstream.DomainPV}, false, nil
	case next != 0 || low == 0 || low > maxPFNs || !first.Known():
		return l, false, fmt.Errorf("%w: begins with % x, which is neither a legacy image nor a stream", record.ErrValue, head[:16])
	}
	// An HVM image of width 32 whose first chunk is END begins so too. No writer makes one, as VCPU_INFO is always sent; its
	// magic PFNs would be where the first chunk is.
	pfns := le.Uint32(head[12:]) | le.Uint32(head[20:]) // high halves of what would be the first two
	return Layout{Width64, xcstream.DomainHVM}, first != 0 && (pfns != 0 || first < 0), nil
}

// isBlock reports whether b begins with the id of a block of extended info.
func isBlock(b []byte) bool {
	switch string(b[:4]) {
	case blockVCPU, blockExtV, blockXCnt:
		return true
	}
	return false
}
