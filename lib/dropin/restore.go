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
)

// restore loads the stream into the domain that libxl has made.
func (o *operation) restore(ctx context.Context, in io.Reader) error {
	if o.call.StoreDomain != 0 || o.call.ConsoleDomain != 0 {
		return fmt.Errorf("xenstore in domain %d, console in domain %d: only domain 0 is supported", o.call.StoreDomain, o.call.ConsoleDomain)
	}
	ported := host.WithPorts(o.host, o.call.Domain, o.call.StorePort, o.call.ConsolePort)
	var opt restore.Options
	if o.call.StreamType == helper.Remus {
		opt.Checkpoint = o.checkpoint
	}
	result, err := restore.Run(ctx, in, opt, func(ctx context.Context, opening restore.Opening) (restore.Guest, error) {
		g, err := x86.OpenRestore(ctx, ported, o.call.Domain, opening.Domain)
		if err != nil {
			return nil, err
		}
		return &announced{g, o}, nil
	}, received{o})
	// libxl takes a restore that never told these for a failure of its own, so they are sent after ours too.
	if e := o.conn.RestoreResults(result.Store, result.Console); err == nil {
		err = e
	}
	return err
}

// checkpoint has libxl read its records of a checkpoint from the stream.
func (o *operation) checkpoint(ctx context.Context) (restore.Verdict, error) {
	r, err := o.conn.Checkpoint(ctx)
	switch {
	case err != nil:
		return 0, err
	case r == 1:
		return restore.GoOn, nil
	case r == 2:
		return restore.FailOver, nil
	}
	return 0, fmt.Errorf("the toolstack could not take its part of a checkpoint: %d", r)
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

// received is the restore.Observer of a restore for libxl.
type received struct{ o *operation }

func (received) Received(int, int) {}

func (r received) Differ(pfns []guest.PFN) {
	for _, p := range pfns {
		r.o.log.Error().Msgf("VERIFY: page %#x differs from the source's", uint64(p))
	}
}
