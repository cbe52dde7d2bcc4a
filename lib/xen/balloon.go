package xen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"xenferry/lib/guest"
)

// MemoryTarget is how much memory a domain was last told to have, in KiB, that of its video card included, as libxl counts it
// (target_memkb); 0 if nobody told it.
func (h *Host) MemoryTarget(ctx context.Context, id guest.DomID) (uint64, error) {
	c, err := h.xenstore(ctx)
	if err != nil {
		return 0, err
	}
	read := func(node string) (uint64, error) {
		s, err := c.Read(ctx, domainPath(id)+node)
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		n, bad := strconv.ParseInt(s, 10, 64)
		if err = errors.Join(err, bad); err != nil {
			return 0, fmt.Errorf("domain %d: %s: %w", id, node, err)
		}
		return uint64(max(n, 0)), nil // libxl writes -1 for what is not set
	}
	target, err := read("/memory/target")
	if err != nil || target == 0 {
		return 0, err
	}
	video, err := read("/memory/videoram")
	return target + video, err
}
