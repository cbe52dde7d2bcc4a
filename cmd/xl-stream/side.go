package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"xenferry/lib/cli"
	"xenferry/lib/direct"
	"xenferry/lib/guard"
	"xenferry/lib/guest"
	"xenferry/lib/host"
	"xenferry/lib/migrate"
	"xenferry/lib/sim"
)

// open opens a host, with a guardian for what is done on it. closeAll, which must be deferred itself (see guard.Close), dismisses
// both; ctx ends with the guardian.
//
// With a folder of journals, what is done can be recovered: process and guardian keep a file there locked while they live.
func open(ctx context.Context, env *cli.Env, spec, folder string) (_ context.Context, side migrate.Side, closeAll func(), err error) {
	cli.CloseOnExec()
	h, err := host.Open(ctx, spec, env.Log)
	if err != nil {
		return ctx, side, nil, err
	}
	return guarded(ctx, env, h, folder, &host.Lock{})
}

// openSource is open for the host of a domain that is to be moved, by its number, name or UUID, and locks that.
func openSource(ctx context.Context, env *cli.Env, spec, folder, word string) (_ context.Context, side migrate.Side, d guest.Info, closeAll func(), err error) {
	cli.CloseOnExec()
	h, err := host.Open(ctx, spec, env.Log)
	if err != nil {
		return ctx, side, d, nil, err
	}
	d, lock, err := direct.FindLocked(ctx, h, word, env.Log)
	if err != nil {
		return ctx, side, d, nil, errors.Join(err, h.Close())
	}
	ctx, side, closeAll, err = guarded(ctx, env, h, folder, lock)
	side.DomainLock = lock
	return ctx, side, d, closeAll, err
}

// guarded is a host with a guardian, who also has the lock of a domain. It closes both where it fails.
func guarded(ctx context.Context, env *cli.Env, h host.Host, folder string, domain *host.Lock) (_ context.Context, side migrate.Side, closeAll func(), err error) {
	defer func() {
		if err != nil {
			domain.Release()
			_ = h.Close()
		}
	}()
	lock, err := openLock(ctx, folder)
	if err != nil {
		return ctx, side, nil, err
	}
	spec := hostSpec(h)
	g, err := guard.Start(spec, lock, domain.File())
	if err != nil {
		return ctx, side, nil, err
	}
	ctx, stop := g.Bind(ctx)
	side = migrate.Side{Host: h, Spec: spec, Guard: g, Log: env.Log, Folder: folder}
	if lock != nil {
		side.Lock = lock.Name()
	}
	return ctx, side, func() {
		panicked := recover()
		stop()
		g.Close(panicked)
		domain.Release()
		_ = h.Close()
		if lock != nil {
			_ = os.Remove(lock.Name())
		}
	}, nil
}

// openLock makes a locked file in a folder of journals; nil if there is no folder.
func openLock(ctx context.Context, folder string) (*os.File, error) {
	if folder == "" {
		return nil, nil
	}
	f, err := migrate.NewLock(ctx, folder)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return f, nil
}

// hostSpec is the host's name for those who shall open the same: children, and a journal's reader.
func hostSpec(h host.Host) string {
	if c, ok := h.(*sim.Client); ok {
		return "sim:" + c.Path()
	}
	return "xen"
}

// journalFolder is where journals are: where the option says, or the default.
func journalFolder(option string) (string, error) {
	if option == "" {
		var err error
		if option, err = migrate.JournalFolder(); err != nil {
			return "", err
		}
	}
	return filepath.Abs(option)
}

// watch is the main of the guardian that open starts. Signals do not end it: they are the worker's.
func watch(ctx context.Context, env *cli.Env) error {
	ctx = context.WithoutCancel(ctx)
	h, err := host.Open(ctx, env.Args[1], env.Log)
	if err != nil {
		return fmt.Errorf("guardian: %w", err)
	}
	return guard.Watch(ctx, func(ctx context.Context, s guard.State) error {
		return errors.Join(migrate.Undo(ctx, h, env.Log, s), h.Close())
	})
}
