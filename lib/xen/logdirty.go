package xen

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// Operations of shadow_op (XEN_DOMCTL_SHADOW_OP_*), and its one mode.
const (
	shadowOff            = 0
	shadowEnableLogDirty = 2
	shadowClean          = 11
	shadowPeek           = 12
	shadowSetAllocation  = 31

	logDirtyFinal = 1 // XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL, from 4.7
)

// SetLogDirty begins or ends the log of a domain's writes.
func (h *Host) SetLogDirty(_ context.Context, id guest.DomID, on bool) error {
	op, what := uint32(shadowOff), "OFF"
	if on {
		op, what = shadowEnableLogDirty, "ENABLE_LOGDIRTY"
	}
	err := detail(h.order(shadowOp, id, func(u []byte) { le.PutUint32(u, op) }), "%s", what)
	if err != nil {
		return h.logDirtyError(err, on)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if on {
		h.logging[id] = true
	} else {
		delete(h.logging, id)
	}
	return nil
}

// logDirtyError says what Xen's refusals of a log mean.
func (h *Host) logDirtyError(err error, on bool) error {
	switch {
	case !on && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)):
		return nil // a PV domain where Xen has no shadow paging: there is no log to end
	case !on:
		return err
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: a PV domain needs a hypervisor with shadow paging for this; save it without --live", err)
	}
	return err
}

// Dirty reads the log, which this process must have begun: Xen answers for one that is off, too, that nothing is dirty.
func (h *Host) Dirty(_ context.Context, id guest.DomID, frames uint64, dirty guest.Bitmap, clean, final bool) (uint64, error) {
	if uint64(len(dirty))*64 < frames {
		return 0, fmt.Errorf("a bitmap for %d frames cannot take %d", len(dirty)*64, frames)
	}
	h.mu.Lock()
	on := h.logging[id]
	h.mu.Unlock()
	if !on {
		if _, err := h.info(id); err != nil {
			return 0, err
		}
		return 0, fmt.Errorf("domain %d has no log of dirty pages that was begun here", id)
	}
	size := int((frames + 63) / 64 * 8)
	d, err := h.domctl(shadowOp, id, size)
	if err != nil {
		return 0, err
	}
	defer d.free()
	op, what := uint32(shadowPeek), "PEEK"
	if clean {
		op, what = shadowClean, "CLEAN"
	}
	le.PutUint32(d.u, op)
	if final && h.release.AtLeast(4, 7) {
		le.PutUint32(d.u[4:], logDirtyFinal)
	}
	bits := d.buffer(16, size)
	le.PutUint64(d.u[24:], frames)
	if err := d.call(); err != nil {
		return 0, detail(err, "%s", what)
	}
	if n := le.Uint64(d.u[24:]); n != frames {
		return 0, fmt.Errorf("%v of domain %d: %s: Xen keeps the log of %d frames, not of all %d", shadowOp, id, what, n, frames)
	}
	dirty.Reset()
	copy(bitmapOctets(dirty), bits)
	if rest := frames % 64; rest != 0 {
		dirty[frames/64] &= 1<<rest - 1
	}
	return dirty.Count(), nil
}
