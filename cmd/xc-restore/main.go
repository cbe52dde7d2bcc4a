package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"xenferry/lib/cli"
	"xenferry/lib/direct"
	"xenferry/lib/dropin"
	"xenferry/lib/guard"
	"xenferry/lib/host"
	"xenferry/lib/record"
	"xenferry/lib/transport"
)

//go:embed doc.go
var doc string

func main() {
	if guard.IsGuardian(os.Args) {
		cli.Main(doc, direct.Watch)
	}
	if dropin.Called(os.Args[1:]) {
		cli.Main(doc, dropin.Run)
	}
	cli.Main(doc, run)
}

func run(ctx context.Context, env *cli.Env) error {
	opt, err := parse(env)
	if err != nil {
		return err
	}
	cli.CloseOnExec()
	h, err := host.Open(ctx, opt.host, env.Log)
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	if opt.restore.DomainFile, err = openLocked(opt.domidFile); err != nil {
		return err
	}
	lock := &host.Lock{} // a domain made here is nobody else's
	if opt.restore.Into != nil {
		if lock, err = host.LockDomain(ctx, h, *opt.restore.Into, env.Log); err != nil {
			return err
		}
		defer lock.Release()
	}
	g, err := guard.Start(opt.host, opt.restore.DomainFile, lock.File())
	if err != nil {
		return err
	}
	defer func() { g.Close(recover()) }()
	ctx, stop := g.Bind(ctx)
	defer stop()
	in, err := transport.NewReader(ctx, opt.fd)
	if err != nil {
		return err
	}
	opt.restore.Stream = in
	if opt.ack >= 0 {
		if opt.restore.Ack, err = transport.NewWriter(opt.ack); err != nil {
			return err
		}
	}
	err = direct.Restore(ctx, h, opt.restore, g, env.Log)
	if record.IsInvalid(err) {
		return cli.WithStatus(cli.ExitInvalid, err)
	}
	return err
}

// openLocked makes the file for the domain's number, locked and then emptied: until then it may be another process's. nil if
// there is none to make.
func openLocked(name string) (*os.File, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if err := f.Truncate(0); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
