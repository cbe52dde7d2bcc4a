package direct

import (
	"context"
	"errors"
	"fmt"

	"xenferry/lib/cli"
	"xenferry/lib/emulator"
	"xenferry/lib/guard"
	"xenferry/lib/host"
)

// Watch is the main of the process that guard.Start starts. Signals do not end it: they are the worker's.
func Watch(ctx context.Context, env *cli.Env) error {
	ctx = context.WithoutCancel(ctx)
	h, err := host.Open(ctx, env.Args[1], env.Log)
	if err != nil {
		return fmt.Errorf("guardian: %w", err)
	}
	return guard.Watch(ctx, func(ctx context.Context, s guard.State) error {
		if s.Emulator {
			return errors.Join(emulator.Undo(ctx, h, env.Log, s), h.Close())
		}
		return errors.Join(guard.Undo(ctx, h, env.Log, s), h.Close())
	})
}
