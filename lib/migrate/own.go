package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"xenferry/lib/guard"
	"xenferry/lib/host"
)

// mine is what the guardian is told of a domain that it shall not destroy.
func (t *Target) mine(unpause bool) guard.State {
	return guard.State{Domain: t.Domain.ID, UUID: t.Domain.UUID, Unpause: unpause}
}

// hold keeps a complete domain, paused, whatever happens to this process, until the source is known to have given or kept
// it.
func (t *Target) hold(paused bool) error {
	if err := t.step(Held, func(r *Record) { r.Domain, r.Paused = t.Domain.ID, paused }); err != nil {
		return err
	}
	t.held = true
	if err := t.tell(t.mine(false)); err != nil {
		t.Log.Warn().Err(err).Msg("going on without a guardian, which has nothing left to do")
	}
	return nil
}

// Alone ends a domain whose UUID another domain has that runs on this host: it would run twice.
func (t *Target) Alone(ctx context.Context) error {
	if err := host.Alone(ctx, t.Host, t.Domain.ID, t.Domain.UUID); err != nil {
		return t.Undo(ctx, err)
	}
	return nil
}

// Own takes a complete domain over, under its own name, which from here on nobody else will run.
func (t *Target) Own(ctx context.Context, paused bool) error {
	ctx = context.WithoutCancel(ctx)
	if err := t.step(Owned, func(r *Record) { r.Paused = paused }); err != nil {
		return err
	}
	if err := t.tell(t.mine(!paused)); err != nil {
		t.Log.Warn().Err(err).Msg("going on without a guardian")
	}
	if t.Name != nil {
		if err := t.rename(ctx, t.Domain.ID, t.name); err != nil {
			return err
		}
	}
	if !paused {
		if err := t.letRun(ctx); err != nil {
			return err
		}
	}
	if err := t.step(Running, nil); err != nil {
		t.Log.Warn().Err(err).Msg("the domain is ours all the same")
	}
	return nil
}

// letRun lets the domain run. Once it has, it is ours even if somebody says that it failed.
func (t *Target) letRun(ctx context.Context) error {
	err := Unpause(ctx, t.Host, t.Domain)
	if err == nil {
		return nil
	}
	if d, e := t.Host.Info(ctx, t.Domain.ID); e == nil && d.EverUnpaused {
		t.Log.Warn().Err(err).Msg("the domain runs all the same")
		return nil
	}
	return fmt.Errorf("let domain %d run: %w", t.Domain.ID, err)
}

// Undo destroys what was made, after a failure, which it adds to.
func (t *Target) Undo(ctx context.Context, err error) error {
	if t.Into != "" && t.state.Destroy && !t.made {
		d, e := t.newcomer(context.WithoutCancel(ctx)) // a toolstack that is killed leaves what it has
		if t.made = d != nil; t.made {
			t.Domain = *d
		}
		err = errors.Join(err, e)
	}
	switch {
	case !t.made:
		return fmt.Errorf("%w; no domain was made", err)
	case t.state.Spare && t.Domain.EverUnpaused:
		return fmt.Errorf("%w; domain %d has run already, and stays", err, t.Domain.ID)
	}
	if t.promised {
		if e := t.step(Returned, nil); e != nil {
			return fmt.Errorf("%w; domain %d is left paused: %w", err, t.Domain.ID, e)
		}
	}
	_ = t.tell(t.state) // without a guardian it is destroyed all the same
	if e := t.destroy(context.WithoutCancel(ctx), t.Domain.ID); e != nil && !errors.Is(e, fs.ErrNotExist) {
		return fmt.Errorf("%w; half-built domain %d could not be destroyed: %w", err, t.Domain.ID, e)
	}
	t.made = false
	if e := t.step(Refused, nil); e != nil {
		t.Log.Warn().Err(e).Msg("the source is told all the same")
	}
	if e := t.tell(guard.State{}); e != nil {
		t.Log.Warn().Err(e).Msg("going on without a guardian")
	}
	return fmt.Errorf("%w; half-built domain %d destroyed", err, t.Domain.ID)
}
