package main

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/google/uuid"

	"xenferry/lib/cli"
	"xenferry/lib/migrate"
	"xenferry/lib/transport"
)

// linkTimeout is how long the other side may be silent.
const linkTimeout = 2 * time.Minute

// remoteReceive is what ssh:HOST runs there.
const remoteReceive = "xl-stream receive"

func send(ctx context.Context, env *cli.Env, args []string) error {
	var hostSpec, config, remote, folder, peer string
	var stopped, verify, plain bool
	var timeout, connect, patience time.Duration
	var secure secured
	var tune tuning
	flags := cli.Flags(env)
	flags.StringVar(&hostSpec, "host", "", "")
	flags.StringVar(&config, "config", "", "")
	flags.StringVar(&folder, "journal", "", "")
	flags.StringVar(&peer, "peer", "", "")
	flags.StringVar(&remote, "remote", remoteReceive, "")
	flags.BoolVar(&stopped, "not-live", false, "")
	flags.BoolVar(&verify, "debug-verify", false, "")
	flags.DurationVar(&timeout, "suspend-timeout", time.Minute, "")
	tune.add(flags)
	secure.flags(flags)
	flags.StringVar(&secure.name, "tls-name", "", "")
	flags.BoolVar(&plain, "plain", false, "")
	flags.DurationVar(&patience, "link-timeout", linkTimeout, "")
	flags.DurationVar(&connect, "connect-timeout", 30*time.Second, "")
	words, err := cli.Parse(flags, args)
	if err != nil {
		return err
	}
	if len(words) != 2 {
		return cli.Usagef("send wants a DOMAIN and a DEST")
	}
	to, err := transport.ParseAddress(words[1], false)
	if err != nil {
		return usage(err)
	}
	if err := secure.check(to.Scheme == transport.TLS); err != nil {
		return err
	}
	if to.Scheme == transport.TLS && secure.name == "" {
		secure.name, _, _ = net.SplitHostPort(to.Host)
	}
	if folder, err = journalFolder(folder); err != nil {
		return err
	}
	streams := []int{}
	if to.Scheme == transport.FD {
		streams = []int{to.In, to.Out}
	}
	tuned, err := tune.open(streams...)
	if err != nil {
		return err
	}
	ctx, side, d, done, err := openSource(ctx, env, hostSpec, folder, words[0])
	if err != nil {
		return err
	}
	defer done()
	side.Patience = patience
	s := &migrate.Source{Side: side, Domain: d, Peer: words[1], Live: !stopped, Verify: verify, SuspendTimeout: timeout, Tuning: tuned, Plain: plain}
	if s.Head, err = head(ctx, env, &side, d, config); err != nil {
		return err
	}
	dialing, cancel := context.WithTimeout(ctx, connect)
	l, err := transport.Dial(dialing, to, transport.Options{Remote: remote, Silence: patience, Filter: secure.words(patience)})
	cancel()
	if err != nil {
		return err
	}
	if err := l.KeepAlive(patience); err != nil {
		return errors.Join(err, l.Close())
	}
	err = migrate.Send(ctx, s, l)
	closed := l.Close()
	if s.Orphan != nil && peer != "" {
		_, e := migrate.TellKept(context.WithoutCancel(ctx), *s.Orphan, (&recovering{peer: peer}).ask)
		if e != nil && !errors.Is(e, migrate.ErrPeerUnknown) {
			env.Log.Warn().Err(e).Msg("the target could not be told that the domain stays here")
		}
	}
	if errors.Is(err, migrate.ErrUndecided) && peer != "" {
		err = decide(context.WithoutCancel(ctx), env, &side, d.UUID, peer, err)
	}
	if err != nil {
		return errors.Join(err, closed)
	}
	if closed != nil {
		env.Log.Warn().Err(closed).Msg("after the hand-over")
	}
	env.Log.Info().Msgf("domain %d is gone: the target has it", d.ID)
	return nil
}

// decide asks the target of a lost hand-over, whose error is lost. It is nil if the target runs the domain.
func decide(ctx context.Context, env *cli.Env, side *migrate.Side, id uuid.UUID, peer string, lost error) error {
	env.Log.Warn().Err(lost).Msg("asking the target")
	state, err := migrate.RecoverSource(ctx, side, id, (&recovering{peer: peer}).ask)
	switch {
	case err != nil:
		return err
	case state == migrate.Running:
		return nil
	}
	return errors.New("the link was lost, and the target has not got the domain: it runs here")
}
