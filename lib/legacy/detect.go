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
	switch {
	case le.Uint64(head) == math.MaxUint64:
		return l, false, fmt.Errorf("%w: a libxc stream of version 2 or 3, which needs no conversion", record.ErrValue)
	case string(head[:8]) == xlstream.Ident:
		return l, false, fmt.Errorf("%w: a libxl stream, which needs no conversion", record.ErrValue)
	case le.Uint64(head[8:]) == math.MaxUint64 && isBlock(head[20:]):
		return Layout{Width64, xcstream.DomainPV}, true, nil
	case next == math.MaxUint32:
		return Layout{Width32, xcstream.DomainPV}, isBlock(head[12:]), nil
	case next != 0:
		id := ChunkID(next)
		if !id.Known() || low > maxPFNs {
			return l, false, fmt.Errorf("%w: begins with % x, which is neither a legacy image nor a stream", record.ErrValue, head[:8])
		}
		return Layout{Width32, xcstream.DomainHVM}, true, nil
	case le.Uint64(head[8:]) == math.MaxUint64:
		return Layout{Width64, xcstream.DomainPV}, false, nil
	}
	// An HVM image of width 32 whose first chunk is END begins so too. No writer makes one, as VCPU_INFO is always sent; its
	// magic PFNs would be where the first chunk is.
	id := ChunkID(le.Uint32(head[8:]))
	pfns := le.Uint32(head[12:]) | le.Uint32(head[20:]) // high halves of what would be the first two
	return Layout{Width64, xcstream.DomainHVM}, low <= maxPFNs && id != 0 && id.Known() && (pfns != 0 || id < 0), nil
}

// isBlock reports whether b begins with the id of a block of extended info.
func isBlock(b []byte) bool {
	switch string(b[:4]) {
	case blockVCPU, blockExtV, blockXCnt:
		return true
	}
	return false
}
