package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
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
	most                 uint // receivers at a time
	into                 into
	tls                  secured // if its cert is not empty
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
	r.tls.flags(flags)
	flags.StringVar(&listen, "listen", "", "")
	flags.BoolVar(&once, "once", false, "")
	flags.UintVar(&r.most, "most", 16, "")
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
	case r.most == 0:
		return cli.Usagef("--most 0 would receive nothing")
	case listen == "":
		return r.standard(ctx, env)
	}
	at, err := transport.ParseAddress(listen, true)
	if err != nil {
		return usage(err)
	}
	if err := r.tls.check(at.Scheme == transport.TLS); err != nil {
		return err
	}
	if at.Scheme == transport.TLS { // what is wrong with the files is said at once
		if _, err := r.tls.config(); err != nil {
			return err
		}
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
		return r.one(ctx, env, k)
	}
	return r.serve(ctx, env, l)
}

// standard receives a domain over standard input and output; over TLS they are one socket, which another process gets.
func (r *receiving) standard(ctx context.Context, env *cli.Env) error {
	at := transport.Address{Scheme: transport.FD, In: 0, Out: 1}
	if r.tls.cert != "" {
		if err := r.tls.check(true); err != nil {
			return err
		}
		fd, err := setAside(0, 1)
		if err != nil {
			return err
		}
		at.In, at.Out = fd, fd
	}
	l, err := transport.Dial(ctx, at, transport.Options{})
	if err != nil {
		return usage(err)
	}
	return r.one(ctx, env, l)
}

// setAside moves a descriptor to another number, and puts /dev/null there and at its copies.
func setAside(fd int, copies ...int) (int, error) {
	moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return 0, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = null.Close() }()
	for _, n := range append(copies, fd) {
		if err := unix.Dup3(int(null.Fd()), n, 0); err != nil {
			return 0, fmt.Errorf("descriptor %d: %w", n, err)
		}
	}
	return moved, nil
}

// one receives a domain over a link, which it closes.
func (r *receiving) one(ctx context.Context, env *cli.Env, l *transport.Link) (err error) {
	peer := l.Peer()
	if r.tls.cert != "" {
		agreeing, cancel := ctx, context.CancelFunc(func() {})
		if r.patience > 0 {
			agreeing, cancel = context.WithTimeoutCause(ctx, r.patience, fmt.Errorf("nobody spoke TLS within %v", r.patience))
		}
		l, err = l.Through(agreeing, r.tls.words(r.patience)...)
		cancel()
		if err != nil {
			return fmt.Errorf("accept TLS: %w", err)
		}
	}
	defer func() {
		if e := l.Close(); e != nil && err == nil {
			env.Log.Warn().Err(e).Msg("after the hand-over")
		}
	}()
	ctx, side, done, err := open(ctx, env, r.host, r.folder)
	if err != nil {
		return err
	}
	defer done()
	side.Patience = r.patience
	if err := l.KeepAlive(r.patience); err != nil {
		return err
	}
	t := &migrate.Target{Side: side, Peer: peer, Into: r.into.command}
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
// has no GO then gives up. Who comes when there are as many as may be waits to be accepted.
func (r *receiving) serve(ctx context.Context, env *cli.Env, l *transport.Listener) error {
	var running sync.WaitGroup
	defer running.Wait()
	places := make(chan struct{}, r.most)
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := r.start(ctx, l)
		switch {
		case err == nil:
			running.Go(func() {
				if err := c.Wait(); err != nil && ctx.Err() == nil { // else it was told to end, and says what came of it
					env.Log.Warn().Msgf("a receiver ended: %v", err)
				}
				<-places
			})
			continue
		case ctx.Err() != nil:
			return nil
		case !passes(err):
			return err
		}
		env.Log.Warn().Err(err).Msgf("trying again in %v", shortageTime)
		<-places
		select {
		case <-time.After(shortageTime):
		case <-ctx.Done():
		}
	}
}

// start starts a receiver for the next link.
func (r *receiving) start(ctx context.Context, l *transport.Listener) (*exec.Cmd, error) {
	k, err := l.Accept(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = k.Close() }()
	c := exec.CommandContext(ctx, "/proc/self/exe", r.words()...)
	c.Cancel = func() error { return c.Process.Signal(unix.SIGTERM) }
	c.Args[0] = os.Args[0]
	c.Stdin, c.Stdout, c.Stderr = k.In, k.Out, os.Stderr
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("start a receiver: %w", err)
	}
	return c, nil
}

// shortageTime is how long a listening receiver waits for what it is short of.
const shortageTime = time.Second

// passes reports whether an error of serve is of one link, or a shortage that may be over soon.
func passes(err error) bool {
	return slices.ContainsFunc([]error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EAGAIN, unix.ECONNABORTED},
		func(e error) bool { return errors.Is(err, e) })
}

// words is the command line of a receiver whose link is standard input and output.
func (r *receiving) words() []string {
	words := []string{"receive", "--host", r.host, "--config", r.config, "--journal", r.folder, "--link-timeout", r.patience.String()}
	if r.tls.cert != "" {
		words = append(words, "--tls-cert", r.tls.cert, "--tls-key", r.tls.key, "--tls-ca", r.tls.ca)
	}
	if r.paused {
		words = append(words, "--paused")
	}
	if r.into.option.Changed {
		words = append(words, "--into", r.into.command)
	}
	return words
}
