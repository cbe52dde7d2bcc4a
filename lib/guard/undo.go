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
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// suspendTime is how long a guest may take that may have been asked to suspend.
const suspendTime = 60 * time.Second

// settleTime is how long a request of the killed worker may still be on its way through the host.
const settleTime = 100 * time.Millisecond

// groupTime is how long a process group may take to end by itself.
const groupTime = 60 * time.Second

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
		Await(s.Group, groupTime)
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
		err = errors.Join(err, Settle(ctx, h, s.Domain), Resume(ctx, h, s.Domain))
	}
	if s.Unpause && info.Paused {
		err = errors.Join(err, h.Unpause(ctx, s.Domain))
	}
	if err != nil {
		return fmt.Errorf("domain %d: %w", s.Domain, err)
	}
	log.Info().Msgf("its process was killed; domain %d %s", s.Domain, Now(ctx, h, info))
	return nil
}

// Now says in words what became of domain d, which may have shut down by itself meanwhile: "runs on", or why it does not.
func Now(ctx context.Context, h interface {
	Info(ctx context.Context, id guest.DomID) (guest.Info, error)
}, d guest.Info) string {
	i, err := h.Info(ctx, d.ID)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && i.UUID != d.UUID:
		return "is gone"
	case err != nil:
		return fmt.Sprintf("may run on: %v", err)
	case i.State() == "runs":
		return "runs on"
	}
	return i.State()
}

// Settle sees to it that a domain is suspended or runs, and stays so: of a process that is gone nobody knows whether it had
// asked for a suspend, and a guest that obeys later would stay suspended. So it asks again, and waits.
func Settle(ctx context.Context, h Host, id guest.DomID) error {
	ctx, cancel := context.WithTimeout(ctx, suspendTime)
	defer cancel()
	if h.Suspend(ctx, id) == nil {
		return nil
	}
	_, err := h.Info(context.WithoutCancel(ctx), id)
	return err
}

// Resume lets a domain run on that is suspended; one that is not runs already. No suspend may be under way: a Host's that
// has returned, with an error or without, is not.
func Resume(ctx context.Context, h Host, id guest.DomID) error {
	info, err := h.Info(ctx, id)
	if err != nil || !info.Suspended() {
		return err
	}
	return h.Resume(ctx, id)
}

// Await waits for a process group, which is killed if it takes longer than limit; 0 is none.
func Await(group int, limit time.Duration) {
	if group == 0 {
		return
	}
	for end := time.Now().Add(limit); unix.Kill(-group, 0) == nil; time.Sleep(settleTime) {
		if time.Now().After(end) {
			_ = unix.Kill(-group, unix.SIGKILL)
			return
		}
	}
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
		if s.Spare && d.EverUnpaused {
			log.Info().Msgf("its process was killed; domain %d has run already, and stays", d.ID)
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
