package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"xenferry/lib/cli"
	"xenferry/lib/migrate"
	"xenferry/lib/transport"
)

// receiving is the options of receive.
type receiving struct {
	host, config, folder string
	paused               bool
	patience             time.Duration
	into                 into
}

func receive(ctx context.Context, env *cli.Env, args []string) error {
	var r receiving
	var listen string
	var once bool
	flags := cli.Flags(env)
	flags.StringVar(&r.host, "host", "", "")
	flags.StringVar(&r.config, "config", "", "")
	r.into.flag(flags)
	flags.BoolVarP(&r.paused, "paused", "p", false, "")
	flags.StringVar(&r.folder, "journal", "", "")
	flags.DurationVar(&r.patience, "link-timeout", linkTimeout, "")
	flags.StringVar(&listen, "listen", "", "")
	flags.BoolVar(&once, "once", false, "")
	words, err := cli.Parse(flags, args)
	if err == nil {
		r.folder, err = journalFolder(r.folder)
	}
	switch {
	case err != nil:
		return err
	case len(words) > 0:
		return cli.Usagef("receive takes no word such as %q", words[0])
	case once && listen == "":
		return cli.Usagef("--once is for --listen")
	case listen == "":
		l, err := transport.Dial(ctx, transport.Address{Scheme: transport.FD, In: 0, Out: 1}, transport.Options{})
		if err != nil {
			return usage(err)
		}
		return r.one(ctx, env, l)
	}
	at, err := transport.ParseAddress(listen, true)
	if err != nil {
		return usage(err)
	}
	l, err := transport.Listen(at)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	env.Log.Info().Msgf("listening on %s:%s", at.Scheme, l.Addr())
	if once {
		k, err := l.Accept(ctx)
		if err != nil {
			return err
		}
		_ = l.Close()
		return errors.Join(r.one(ctx, env, k), k.Close())
	}
	return r.serve(ctx, env, l)
}

// one receives a domain.
func (r *receiving) one(ctx context.Context, env *cli.Env, l *transport.Link) error {
	ctx, side, done, err := open(ctx, env, r.host, r.folder)
	if err != nil {
		return err
	}
	defer done()
	side.Patience = r.patience
	if err := l.KeepAlive(r.patience); err != nil {
		return err
	}
	t := &migrate.Target{Side: side, Into: r.into.command}
	if r.into.byXL(side.Host) {
		t.Into = "xl restore -p /proc/self/fd/0"
	}
	if r.config != "" {
		if t.Config, err = os.ReadFile(r.config); err != nil {
			return err
		}
	}
	if err := migrate.Receive(ctx, t, l, r.paused); err != nil {
		return streamStatus("receive", err)
	}
	state := "running"
	if r.paused {
		state = "complete and paused"
	}
	env.Log.Info().Msgf("domain %d %s", t.Domain.ID, state)
	return nil
}

// serve receives one domain after the other, or several at a time, each by a process of its own, until ctx ends; who
// has no GO then gives up.
func (r *receiving) serve(ctx context.Context, env *cli.Env, l *transport.Listener) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		k, err := l.Accept(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		c := exec.CommandContext(ctx, "/proc/self/exe", r.words()...)
		c.Cancel = func() error { return c.Process.Signal(unix.SIGTERM) }
		c.Args[0] = os.Args[0]
		c.Stdin, c.Stdout, c.Stderr = k.In, k.Out, os.Stderr
		err = c.Start()
		_ = k.Close()
		if err != nil {
			return fmt.Errorf("start a receiver: %w", err)
		}
		running.Go(func() {
			if err := c.Wait(); err != nil {
				env.Log.Warn().Msgf("a receiver ended: %v", err)
			}
		})
	}
}

// words is the command line of a receiver whose link is standard input and output.
func (r *receiving) words() []string {
	words := []string{"receive", "--host", r.host, "--config", r.config, "--journal", r.folder, "--link-timeout", r.patience.String()}
	if r.paused {
		words = append(words, "--paused")
	}
	if r.into.option.Changed {
		words = append(words, "--into", r.into.command)
	}
	return words
}
