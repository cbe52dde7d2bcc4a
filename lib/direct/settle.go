package direct

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/rs/zerolog"

	"xenferry/lib/emulator"
	"xenferry/lib/guard"
	"xenferry/lib/guest"
	"xenferry/lib/host"
)

// Resume lets a domain run on that was left suspended, and its emulator, if it can be reached. One that runs is well too.
// One that is paused stays so: whoever paused it, it was not for a save or a restore that is over. A log of dirty pages that is
// left, of a save that was killed, ends; but an HVM guest's, which may be its display's.
func Resume(ctx context.Context, h host.Host, d guest.Info, log zerolog.Logger) error {
	switch {
	case d.Dying, d.Shutdown && !d.Suspended():
		return fmt.Errorf("domain %d is not suspended and cannot run on: it has shut down (%v)", d.ID, d.Reason)
	case d.Paused && !d.Shutdown:
		log.Info().Msgf("domain %d is paused, not suspended, and stays so", d.ID)
		return nil
	}
	if d.Kind != guest.HVM {
		if err := h.SetLogDirty(ctx, d.ID, false); err != nil {
			return fmt.Errorf("domain %d: %w", d.ID, err)
		}
	}
	var stopped error
	if e := emulator.Open(h, d); e != nil {
		stopped = e.Cont(ctx)
	}
	if err := guard.Resume(ctx, h, d.ID); err != nil {
		return fmt.Errorf("resume domain %d: %w", d.ID, err)
	}
	switch {
	case errors.Is(stopped, fs.ErrNotExist):
		log.Warn().Err(stopped).Msgf("domain %d is resumed, and its emulator has to be told by whoever can", d.ID)
	case stopped != nil:
		return fmt.Errorf("domain %d is resumed, but its devices may stand still: %w", d.ID, stopped)
	}
	if d.Paused {
		log.Info().Msgf("domain %d resumed; it is paused, and stays so", d.ID)
		return nil
	}
	log.Info().Msgf("domain %d running", d.ID)
	return nil
}

// Destroy ends a domain that was left suspended. One that runs is refused: nothing here is sure that it runs elsewhere.
func Destroy(ctx context.Context, h host.Host, d guest.Info, log zerolog.Logger) error {
	if !d.Shutdown && !d.Dying {
		return fmt.Errorf("domain %d is not suspended: it runs on", d.ID)
	}
	if err := h.Destroy(ctx, d.ID); err != nil {
		return fmt.Errorf("destroy domain %d: %w", d.ID, err)
	}
	log.Info().Msgf("domain %d destroyed", d.ID)
	return nil
}
