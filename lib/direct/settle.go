package direct

import (
	"context"
	"fmt"

	"github.com/rs/zerolog"

	"xenferry/lib/guest"
	"xenferry/lib/host"
)

// Resume lets a domain run on that was left suspended. One that runs is well too.
func Resume(ctx context.Context, h host.Host, d guest.Info, log zerolog.Logger) error {
	if d.Suspended() {
		if err := h.Resume(ctx, d.ID); err != nil {
			return fmt.Errorf("resume domain %d: %w", d.ID, err)
		}
	} else if d.Shutdown || d.Dying {
		return fmt.Errorf("domain %d is not suspended and cannot run on: it has shut down for reason %d", d.ID, d.Reason)
	}
	if d.Paused {
		if err := h.Unpause(ctx, d.ID); err != nil {
			return fmt.Errorf("domain %d is resumed but paused: %w", d.ID, err)
		}
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
