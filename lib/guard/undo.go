package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"xenferry/lib/guest"
)

// suspendTime is how long a guest that was asked to suspend may take until it can be resumed.
const suspendTime = 60 * time.Second

// settleTime is how long a request of the killed worker may still be on its way through the host.
const settleTime = 100 * time.Millisecond

// Host is what undoing takes.
type Host interface {
	Info(ctx context.Context, id guest.DomID) (guest.Info, error)
	Domains(ctx context.Context) ([]guest.Info, error)
	SetLogDirty(ctx context.Context, id guest.DomID, on bool) error
	Suspend(ctx context.Context, id guest.DomID) error
	Resume(ctx context.Context, id guest.DomID) error
	Unpause(ctx context.Context, id guest.DomID) error
	Destroy(ctx context.Context, id guest.DomID) error
}

// Undo does what s asks for, to the domain that s means and to no other. It says in one line what became of it.
func Undo(ctx context.Context, h Host, log zerolog.Logger, s State) error {
	if !s.Destroy && !s.StopLog && !s.Resume && !s.Unpause {
		return nil
	}
	time.Sleep(settleTime)
	if s.Destroy {
		return destroy(ctx, h, log, s)
	}
	info, err := h.Info(ctx, s.Domain)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.UUID != s.UUID:
		log.Info().Msgf("domain %d is gone; nothing left to undo", s.Domain)
		return nil
	case err != nil:
		return err
	}
	if s.StopLog {
		err = h.SetLogDirty(ctx, s.Domain, false)
	}
	if s.Resume {
		err = errors.Join(err, Resume(ctx, h, s.Domain))
	}
	if s.Unpause && info.Paused {
		err = errors.Join(err, h.Unpause(ctx, s.Domain))
	}
	if err != nil {
		return fmt.Errorf("domain %d: %w", s.Domain, err)
	}
	log.Info().Msgf("its process was killed; domain %d runs", s.Domain)
	return nil
}

// Resume lets a domain run on that is suspended, or was asked to suspend and is about to: then it waits for that first,
// as a guest that suspends later would stay so. One that did not suspend after all runs already.
func Resume(ctx context.Context, h Host, id guest.DomID) error {
	ctx, cancel := context.WithTimeout(ctx, suspendTime)
	defer cancel()
	if err := h.Suspend(ctx, id); err != nil {
		info, e := h.Info(context.WithoutCancel(ctx), id)
		if e != nil {
			return errors.Join(err, e)
		}
		if !info.Suspended() {
			return nil
		}
	}
	return h.Resume(ctx, id)
}

// destroy removes a half-built domain, found by its number or, where that was not known yet, by being new.
func destroy(ctx context.Context, h Host, log zerolog.Logger, s State) error {
	all, err := h.Domains(ctx)
	if err != nil {
		return err
	}
	for _, d := range all {
		if d.UUID != s.UUID || slices.Contains(s.Existing, d.ID) || s.Domain != 0 && d.ID != s.Domain {
			continue
		}
		if err := h.Destroy(ctx, d.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("half-built domain %d: %w", d.ID, err)
		}
		log.Info().Msgf("its process was killed; half-built domain %d destroyed", d.ID)
	}
	if s.File != "" {
		return os.Truncate(s.File, 0)
	}
	return nil
}
