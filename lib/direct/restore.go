package direct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/rs/zerolog"

	"xenferry/lib/emulator"
	"xenferry/lib/guard"
	"xenferry/lib/guest"
	"xenferry/lib/handover"
	"xenferry/lib/host"
	"xenferry/lib/restore"
	"xenferry/lib/x86"
)

// RestoreOptions say how Restore restores.
type RestoreOptions struct {
	Stream io.Reader
	Ack    io.Writer // the way back to the source; nil for none
	Paused bool      // leave the domain paused

	// Into is a domain, paused and without memory, that somebody else made and keeps; nil has one made, by Spec or by
	// what the stream says.
	Into *guest.DomID
	// StorePort and ConsolePort are the event channels of the domain Into; 0 for those that the host tells.
	StorePort, ConsolePort uint32
	Spec                   *guest.Spec
	// DomainFile gets the domain's number as soon as the domain is this side's, and is empty before and after a failure.
	DomainFile *os.File
}

// restoring is one restore, and the restore.Observer of it.
type restoring struct {
	h     host.Host
	opt   RestoreOptions
	guard Guardian
	log   zerolog.Logger

	spec guest.Spec
	id   guest.DomID
	made bool // by us, so a failure destroys it
	// reserver has set memory aside for a domain that is not ours; else nil.
	reserver host.Reserver
	state    guard.State
	pages    uint64
	differ   int
}

// Restore makes a domain from the stream and lets it run. Whatever happens, the last line of the log,
// or the error, says in which state the domain is when it returns.
func Restore(ctx context.Context, h host.Host, opt RestoreOptions, g Guardian, log zerolog.Logger) error {
	r := &restoring{h: h, opt: opt, guard: g, log: log}
	err := r.run(ctx)
	if err != nil {
		err = r.failed(context.WithoutCancel(ctx), err)
	}
	return err
}

func (r *restoring) run(ctx context.Context) error {
	rings, err := restore.Run(ctx, r.opt.Stream, restore.Options{}, r.open, r)
	if r.reserver != nil {
		err = errors.Join(err, r.reserver.Reserve(context.WithoutCancel(ctx), r.id, 0))
	}
	if err != nil {
		return err
	}
	if r.differ > 0 {
		return fmt.Errorf("VERIFY found %d pages that differ from the source's", r.differ)
	}
	if i, ok := r.h.(host.Introducer); ok && r.made {
		if err := i.Introduce(ctx, r.id, rings); err != nil {
			return err
		}
	}
	if !r.made { // its maker has to tell xenstored and the console
		r.log.Info().Msgf("domain %d: the ring of xenstore is in frame %#x, of the console in %#x", r.id, uint64(rings.Store), uint64(rings.Console))
	}
	if !r.opt.Paused { // before the source gives it, which is suspended, and may be of this host
		if err := host.Alone(ctx, r.h, r.id, r.spec.UUID); err != nil {
			return err
		}
	}
	if err := r.agree(ctx); err != nil {
		return err
	}
	return r.own(context.WithoutCancel(ctx))
}

// open makes the domain that the stream needs, or takes the one that is there.
func (r *restoring) open(ctx context.Context, o restore.Opening) (restore.Guest, error) {
	if r.opt.Into != nil {
		info, err := r.h.Info(ctx, *r.opt.Into)
		switch {
		case err != nil:
			return nil, err
		case !info.Paused || info.EverUnpaused:
			return nil, fmt.Errorf("domain %d is not new and paused: restoring into it would destroy what it is", info.ID)
		}
		r.id, r.spec = info.ID, SpecOf(info)
		r.log.Info().Msgf("loading into domain %d", r.id)
		return r.openInto(ctx, o)
	}
	spec := r.opt.Spec
	if spec == nil {
		spec = o.Spec
	}
	if spec == nil {
		return nil, errors.New("the stream does not say what domain to make: name one by --domid, describe it by --domain FILE, " +
			"or give --kind, --vcpus and --memory")
	}
	if err := suits(*spec, o); err != nil {
		return nil, err
	}
	if spec.Kind == guest.HVM && !emulator.StartedBy(r.h) {
		return nil, errors.New("an HVM domain has an emulator, which is a toolstack's to start: have one make the domain and name that by --domid, " +
			"or let xl-stream save and restore it")
	}
	r.spec = *spec
	if err := r.create(ctx); err != nil {
		return nil, err
	}
	return x86.OpenRestore(ctx, r.h, r.id, o.Domain)
}

// openInto readies a domain that somebody else made.
func (r *restoring) openInto(ctx context.Context, o restore.Opening) (restore.Guest, error) {
	h := host.WithPorts(r.h, r.id, r.opt.StorePort, r.opt.ConsolePort)
	switch info, err := h.Info(ctx, r.id); {
	case err != nil:
		return nil, err
	case info.StoreEvtchn == 0:
		return nil, fmt.Errorf("which event channel domain %d has for xenstore is not known here: give --store-evtchn", r.id)
	case info.ConsoleEvtchn == 0:
		return nil, fmt.Errorf("which event channel domain %d has for its console is not known here: give --console-evtchn", r.id)
	}
	if reserver, ok := r.h.(host.Reserver); ok && o.Spec != nil && o.Spec.Pages > 0 {
		if err := reserver.Reserve(ctx, r.id, o.Spec.Pages); err != nil {
			return nil, err
		}
		r.reserver = reserver
	}
	return x86.OpenRestore(ctx, h, r.id, o.Domain)
}

// suits holds what the domain shall be against what the stream is of.
func suits(spec guest.Spec, o restore.Opening) error {
	k := o.Kind()
	if k == spec.Kind || k == guest.HVM && spec.Kind == guest.PVH {
		return nil
	}
	return fmt.Errorf("the stream is of %v, kind %v; the domain shall be %v", o.Domain.Type, k, spec.Kind)
}

func (r *restoring) create(ctx context.Context) error {
	all, err := r.h.Domains(ctx)
	if err != nil {
		return err
	}
	r.state = guard.State{UUID: r.spec.UUID, Destroy: true}
	for _, d := range all {
		r.state.Existing = append(r.state.Existing, d.ID)
	}
	if r.opt.DomainFile != nil {
		r.state.File = r.opt.DomainFile.Name()
	}
	if err := r.guard.Tell(r.state); err != nil {
		return err
	}
	if r.id, err = r.h.Create(ctx, r.spec); err != nil {
		return fmt.Errorf("create a domain: %w", err)
	}
	r.made = true
	r.state.Domain = r.id
	r.log.Info().Msgf("domain %d created", r.id)
	return r.guard.Tell(r.state)
}

// Received implements restore.Observer.
func (r *restoring) Received(_, pages int) { r.pages += uint64(pages) }

// Taken implements restore.Observer. No stream of checkpoints comes here.
func (*restoring) Taken() {}

// Differ implements restore.Observer.
func (r *restoring) Differ(pfns []guest.PFN) {
	const show = 10
	for i, p := range pfns {
		if r.differ+i < show {
			r.log.Warn().Msgf("VERIFY: page %#x differs from the source's", p)
		}
	}
	r.differ += len(pfns)
}

// agree waits for the source to give the domain away, where it can say so.
func (r *restoring) agree(ctx context.Context) error {
	if r.opt.Ack == nil {
		return ctx.Err()
	}
	if err := handover.Send(r.opt.Ack, handover.Ready); err != nil {
		return err
	}
	_, err := handover.Receive(r.opt.Stream, handover.Go)
	return err
}

// own takes the domain over, which from here on nobody else will run.
func (r *restoring) own(ctx context.Context) error {
	if err := r.publish(); err != nil {
		return err
	}
	owned := guard.State{Domain: r.id, UUID: r.spec.UUID, Unpause: !r.opt.Paused}
	if err := r.guard.Tell(owned); err != nil {
		r.log.Warn().Err(err).Msg("going on without a guardian")
	}
	if !r.opt.Paused {
		if err := r.h.Unpause(ctx, r.id); err != nil {
			if info, e := r.h.Info(ctx, r.id); e != nil || info.Paused {
				return fmt.Errorf("let domain %d run: %w", r.id, err)
			}
		}
	}
	if r.opt.Ack != nil {
		if err := handover.Send(r.opt.Ack, handover.Running); err != nil {
			r.log.Warn().Err(err).Msg("the source was not told, and keeps its copy suspended")
		}
	}
	state := "running"
	if r.opt.Paused {
		state = "complete and paused"
	}
	r.log.Info().Msgf("domain %d %s; %d pages received", r.id, state, r.pages)
	return nil
}

// publish writes the domain's number to the file that the caller named.
func (r *restoring) publish() error {
	f := r.opt.DomainFile
	if f == nil {
		return nil
	}
	if _, err := f.WriteString(strconv.Itoa(int(r.id)) + "\n"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

// failed destroys what was made, tells a source that waits, and says so.
func (r *restoring) failed(ctx context.Context, err error) error {
	switch {
	case !r.made && r.opt.Into != nil && r.id != 0:
		return fmt.Errorf("%w; domain %d is half-built and paused: its maker should destroy it", err, r.id)
	case !r.made:
		return fmt.Errorf("%w; no domain was made", err)
	}
	if e := r.guard.Tell(r.state); e == nil {
		defer func() { _ = r.guard.Tell(guard.State{}) }()
	}
	if e := r.h.Destroy(ctx, r.id); e != nil {
		return fmt.Errorf("%w; half-built domain %d could not be destroyed: %w", err, r.id, e)
	}
	if r.opt.DomainFile != nil {
		_ = r.opt.DomainFile.Truncate(0)
	}
	if r.opt.Ack != nil {
		_ = handover.Send(r.opt.Ack, handover.Failed)
	}
	return fmt.Errorf("%w; half-built domain %d destroyed", err, r.id)
}
