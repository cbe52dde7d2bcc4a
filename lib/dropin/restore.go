package dropin

import (
	"context"
	"fmt"
	"io"

	"xenferry/lib/guest"
	"xenferry/lib/helper"
	"xenferry/lib/host"
	"xenferry/lib/restore"
	"xenferry/lib/x86"
	"xenferry/lib/xcstream"
)

// restore loads the stream into the domain that libxl has made.
func (o *operation) restore(ctx context.Context, in io.Reader) error {
	if o.call.StoreDomain != 0 || o.call.ConsoleDomain != 0 {
		return fmt.Errorf("xenstore in domain %d, console in domain %d: only domain 0 is supported", o.call.StoreDomain, o.call.ConsoleDomain)
	}
	ported := host.WithPorts(o.host, o.call.Domain, o.call.StorePort, o.call.ConsolePort)
	r := &restoring{operation: o}
	var opt restore.Options
	if o.call.StreamType == helper.Remus {
		opt.Checkpoint = r.checkpoint
	}
	result, err := restore.Run(ctx, in, opt, func(ctx context.Context, opening restore.Opening) (restore.Guest, error) {
		r.found(opening.Domain)
		g, err := x86.OpenRestore(ctx, ported, o.call.Domain, opening.Domain)
		if err != nil {
			return nil, err
		}
		return &announced{g, o}, nil
	}, r)
	if err == nil {
		o.conn.Info("Restore successful")
		o.conn.Info("XenStore: mfn %#x, dom %d, evt %d", uint64(result.Store), o.call.StoreDomain, o.call.StorePort)
		o.conn.Info("Console: mfn %#x, dom %d, evt %d", uint64(result.Console), o.call.ConsoleDomain, o.call.ConsolePort)
	}
	o.rings = result
	return err
}

// restoring is the restore.Observer of a restore for libxl.
type restoring struct {
	*operation
	began bool // a checkpoint is in the domain; what comes is kept back until the next
}

// found says what the stream's headers say.
func (r *restoring) found(h xcstream.DomainHeader) {
	if h.Xen.Major == 0 {
		r.conn.Info("Found %v domain, converted from legacy stream format", h.Type)
	} else {
		r.conn.Info("Found %v domain from Xen %v", h.Type, h.Xen)
	}
	r.conn.Info("Restoring domain")
}

// checkpoint has libxl read its records of a checkpoint from the stream.
func (r *restoring) checkpoint(ctx context.Context) (restore.Verdict, error) {
	answer, err := r.conn.Checkpoint(ctx)
	switch {
	case err != nil:
		return 0, err
	case answer == 1:
		if r.began {
			r.conn.Info("All records buffered")
		}
		r.began = true
		return restore.GoOn, nil
	case answer == 2:
		return restore.FailOver, nil
	}
	return 0, fmt.Errorf("the toolstack could not take its part of a checkpoint: %d", answer)
}

// Received implements restore.Observer.
func (*restoring) Received(int, int) {}

// Taken implements restore.Observer.
func (r *restoring) Taken() { r.conn.Info("All records processed") }

// Differ implements restore.Observer.
func (r *restoring) Differ(pfns []guest.PFN) {
	for _, p := range pfns {
		r.log.Error().Msgf("VERIFY: page %#x differs from the source's", uint64(p))
	}
}

// announced is a restore.Guest that tells libxl when the static records are complete.
type announced struct {
	restore.Guest
	o *operation
}

func (a *announced) StaticEnd(ctx context.Context, policy guest.CPUPolicy) error {
	if err := a.Guest.StaticEnd(ctx, policy); err != nil {
		return err
	}
	missing := uint32(0)
	if len(policy.Leaves) == 0 {
		missing |= helper.MissingCPUID
	}
	if len(policy.MSRs) == 0 {
		missing |= helper.MissingMSR
	}
	return a.o.conn.StaticDataDone(ctx, missing)
}
