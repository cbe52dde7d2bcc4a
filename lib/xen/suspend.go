package xen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/xenstore"
)

const (
	paramCallbackIRQ = 0  // HVM_PARAM_CALLBACK_IRQ, 0 without PV drivers
	paramACPISState  = 14 // HVM_PARAM_ACPI_S_STATE, not 0 while the guest sleeps
)

// stopTime is how long a guest may take from saying that it suspends until it has, and pollTime how often it is looked
// at beside what xenstored tells.
const (
	stopTime = 60 * time.Second
	pollTime = 100 * time.Millisecond
)

// releaseDomain is what xenstored calls a watch for whenever a domain stops.
const releaseDomain = "@releaseDomain"

// Suspend has the guest suspend itself, asked through xenstore; an HVM guest without PV drivers, or asleep, is stopped
// by Xen. A domain that is suspended already is well. When ctx ends before the guest took notice, the request is
// withdrawn for good; after that the guest will suspend, and Suspend waits until it has.
func (h *Host) Suspend(ctx context.Context, id guest.DomID) error {
	i, err := h.info(id)
	switch {
	case err != nil:
		return err
	case i.Suspended():
		return nil
	case i.Shutdown || i.Dying:
		return fmt.Errorf("suspend domain %d: it has shut down (%v)", id, i.Reason)
	case i.Paused:
		return fmt.Errorf("suspend domain %d: it is paused, and cannot suspend itself", id)
	}
	hears, err := h.hearsXenstore(ctx, i)
	if err != nil {
		return err
	}
	if !hears {
		if err := h.remoteShutdown(id, guest.ShutdownSuspend); err != nil {
			return err
		}
		// It has not stopped before its emulator has answered what a vCPU waits for, and will in any case.
		if err := h.awaitStop(context.WithoutCancel(ctx), id, nil); err != nil {
			return err
		}
	} else if err := h.requestSuspend(ctx, id); err != nil {
		return fmt.Errorf("suspend domain %d: %w", id, err)
	}
	if i, err = h.info(id); err != nil {
		return err
	}
	if !i.Suspended() {
		return fmt.Errorf("suspend domain %d: it has shut down (%v)", id, i.Reason)
	}
	return nil
}

// hearsXenstore reports whether the guest will read what it is asked in xenstore.
func (h *Host) hearsXenstore(ctx context.Context, i guest.Info) (bool, error) {
	if i.Kind.PV() {
		return true, nil
	}
	irq, err := h.HVMParam(ctx, i.ID, paramCallbackIRQ)
	if err != nil {
		return false, err
	}
	sleep, err := h.HVMParam(ctx, i.ID, paramACPISState)
	return irq != 0 && sleep == 0, err
}

// remoteShutdown stops a domain without asking it (SCHEDOP_remote_shutdown: domain_id u16, reason u32 at 4).
func (h *Host) remoteShutdown(id guest.DomID, reason guest.ShutdownReason) error {
	const cmd = 4
	a, err := h.memory.take(64)
	if err != nil {
		return err
	}
	defer a.free()
	op := a.get(8)
	le.PutUint16(op, uint16(id))
	le.PutUint32(op[4:], uint32(reason))
	_, err = h.dev.call(callSchedOp, cmd, address(op))
	return fail("SCHEDOP_remote_shutdown", id, err)
}

// requestSuspend asks in xenstore and returns when the domain has stopped.
func (h *Host) requestSuspend(ctx context.Context, id guest.DomID) error {
	c, err := h.xenstore(ctx)
	if err != nil {
		return err
	}
	node := shutdownNode(id)
	answered, err := c.Watch(ctx, node)
	if err != nil {
		return err
	}
	defer answered.Close()
	stopped, err := c.Watch(ctx, releaseDomain)
	if err != nil {
		return err
	}
	defer stopped.Close()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// A request that is on its way cannot be taken for one that was not made.
	if err := c.Write(context.WithoutCancel(ctx), node, "suspend"); err != nil {
		return err
	}
	noticed := func() (bool, error) {
		v, err := c.Read(ctx, node)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		if v != "suspend" {
			return true, nil
		}
		return h.stopped(id)
	}
	if err := await(ctx, answered.Events(), noticed); err != nil {
		withdrawn, e := withdraw(context.WithoutCancel(ctx), c, node)
		if e != nil || withdrawn {
			return errors.Join(err, e)
		}
		return errors.Join(err, h.awaitStop(context.WithoutCancel(ctx), id, stopped.Events()))
	}
	return h.awaitStop(context.WithoutCancel(ctx), id, stopped.Events())
}

// shutdownNode is where a guest is asked to shut down or suspend. It answers by emptying it.
func shutdownNode(id guest.DomID) string { return domainPath(id) + "/control/shutdown" }

// awaitStop waits for a guest that is about to suspend.
func (h *Host) awaitStop(ctx context.Context, id guest.DomID, events <-chan string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stopTime, fmt.Errorf("domain %d was about to suspend, but did not within %v", id, stopTime))
	defer cancel()
	return await(ctx, events, func() (bool, error) { return h.stopped(id) })
}

func (h *Host) stopped(id guest.DomID) (bool, error) {
	i, err := h.info(id)
	return i.Shutdown || i.Dying, err
}

// await returns when done says so: it is asked at each event, and now and then in case one was lost or there are none.
func await(ctx context.Context, events <-chan string, done func() (bool, error)) error {
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-events:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// withdraw takes the request back, unless the guest has taken it.
func withdraw(ctx context.Context, c *xenstore.Conn, node string) (withdrawn bool, err error) {
	err = c.Transaction(ctx, func(tx *xenstore.Tx) error {
		v, err := tx.Read(ctx, node)
		if withdrawn = v == "suspend"; !withdrawn || err != nil {
			return err
		}
		return tx.Write(ctx, node, "")
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return withdrawn, err
}

// Offsets of a return value's register in vcpu_guest_context: rax, or eax of a 32-bit PV guest.
const (
	contextRAX = 600
	contextEAX = 540
)

// Resume lets a suspended domain run on as if the suspend had been cancelled: its hypercall to suspend returns 1.
func (h *Host) Resume(ctx context.Context, id guest.DomID) error {
	i, err := h.info(id)
	switch {
	case err != nil:
		return err
	case !i.Suspended():
		return fmt.Errorf("resume domain %d: it is not suspended", id)
	}
	if err := h.kept.drop(id); err != nil {
		return err
	}
	asked, err := h.hearsXenstore(ctx, i)
	if err != nil {
		return err
	}
	if asked {
		if err := h.returnCancelled(ctx, i); err != nil {
			return err
		}
	}
	// Without xenstored it runs on all the same. A second request, made before the first was obeyed, would suspend it again.
	c, unheard := h.xenstore(ctx)
	if unheard == nil {
		_, unheard = withdraw(ctx, c, shutdownNode(id))
	}
	if err := h.order(resumeDomain, id, nil); err != nil {
		return err
	}
	if unheard == nil {
		// Else xenstored would tell nobody when the domain stops the next time. It refuses for a domain it does not know.
		unheard = c.Resume(ctx, id)
	}
	if unheard != nil && !errors.Is(unheard, fs.ErrNotExist) && !errors.Is(unheard, unix.EINVAL) {
		h.log.Warn().Err(unheard).Msgf("domain %d runs, but xenstored takes it for stopped", id)
	}
	return nil
}

// returnCancelled sets what vCPU 0's hypercall returns.
func (h *Host) returnCancelled(ctx context.Context, i guest.Info) error {
	c, err := h.VCPUContext(ctx, i.ID, 0)
	if err != nil {
		return err
	}
	if i.Kind == guest.PV32 {
		le.PutUint32(c[contextEAX:], 1)
	} else {
		le.PutUint64(c[contextRAX:], 1)
	}
	return h.SetVCPUContext(ctx, i.ID, 0, c)
}
