package emulator

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"xenferry/lib/guard"
	"xenferry/lib/guest"
	"xenferry/lib/host"
)

// Resume lets a domain run on that was suspended, its devices first. It runs also if they do not go on, which is an error: ask
// the host.
func Resume(ctx context.Context, h host.Host, d guest.Info) error {
	var err error
	if e := Open(h, d); e != nil {
		if err = e.Cont(ctx); err != nil {
			err = fmt.Errorf("its emulator stands still: %w", err)
		}
	}
	return errors.Join(err, guard.Resume(ctx, h, d.ID))
}

// Undo is guard.Undo, and the emulator's part of it.
func Undo(ctx context.Context, h host.Host, log zerolog.Logger, s guard.State) error {
	if !s.StopLog && !s.Resume && !s.Unpause {
		return guard.Undo(ctx, h, log, s)
	}
	info, err := h.Info(ctx, s.Domain)
	if err != nil || info.UUID != s.UUID {
		return guard.Undo(ctx, h, log, s) // which says so
	}
	if e := Open(h, info); e != nil {
		if s.StopLog {
			err = e.SetDirtyLog(ctx, false)
		}
		if s.Resume || s.Unpause {
			err = errors.Join(err, e.Cont(ctx))
		}
	}
	return errors.Join(err, guard.Undo(ctx, h, log, s))
}
