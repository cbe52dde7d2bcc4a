package main

import (
	"context"
	"fmt"
	"os"

	"xenferry/lib/cli"
	"xenferry/lib/direct"
	"xenferry/lib/guard"
	"xenferry/lib/host"
	"xenferry/lib/progress"
)

func (o *options) run(ctx context.Context, env *cli.Env) error {
	cli.CloseOnExec()
	h, err := host.Open(ctx, o.host, env.Log)
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	d, lock, err := direct.FindLocked(ctx, h, o.domain, env.Log)
	if err != nil {
		return err
	}
	defer lock.Release()
	if !o.check {
		if _, err := lock.Claim(); err != nil {
			return err
		}
	}
	switch {
	case o.check:
		state, err := direct.Check(ctx, h, d)
		if err == nil {
			_, err = fmt.Fprintf(env.Stdout, "domain %d %s\n", d.ID, state)
		}
		return err
	case o.resume:
		return direct.Resume(ctx, h, d, env.Log)
	case o.destroy:
		return direct.Destroy(ctx, h, d, env.Log)
	}
	spec := direct.SpecOf(d)
	o.save.Spec = &spec
	if err := o.writeDomain(); err != nil {
		return err
	}
	if o.strict {
		o.save.Spec = nil
	}
	stats, err := o.statsTo.Open()
	if err != nil {
		return err
	}
	g, err := guard.Start(o.host, lock.File())
	if err != nil {
		return err
	}
	defer func() { g.Close(recover()) }()
	ctx, stop := g.Bind(ctx)
	defer stop()
	link, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	o.save.Hold = context.AfterFunc(ctx, func() { cut(context.Cause(ctx)) })
	if err := o.openStream(link); err != nil {
		return err
	}
	return direct.Save(ctx, h, d, o.save, g, env.Log, progress.New(env.Log, os.Stderr, stats))
}
