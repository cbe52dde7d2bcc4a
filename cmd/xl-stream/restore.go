package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"xenferry/lib/cli"
	"xenferry/lib/migrate"
	"xenferry/lib/sim"
	"xenferry/lib/transport"
)

// intoXL is how a domain is made on a real host, where its devices are a toolstack's matter.
const intoXL = "xl restore /dev/fd/0"

func restore(ctx context.Context, env *cli.Env, args []string) error {
	var hostSpec, config, into string
	var paused bool
	flags := cli.Flags(env)
	flags.StringVar(&hostSpec, "host", "", "")
	flags.StringVar(&config, "config", "", "")
	flags.StringVar(&into, "into", "", "")
	flags.BoolVar(&paused, "paused", false, "")
	words, err := cli.Parse(flags, args)
	switch {
	case err != nil:
		return err
	case len(words) > 1:
		return cli.Usagef("restore wants one FILE at most")
	case into != "" && (config != "" || paused):
		return cli.Usagef("--config and --paused are for what --into runs to know")
	}
	in := os.Stdin
	if len(words) == 1 {
		if in, err = os.Open(words[0]); err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
	}
	if err := transport.Check(int(in.Fd())); err != nil {
		return usage(err)
	}
	if into != "" {
		return handTo(ctx, into, in)
	}
	ctx, side, done, err := open(ctx, env, hostSpec, "")
	if err != nil {
		return err
	}
	defer done()
	if _, ok := side.Host.(*sim.Client); !ok && config == "" {
		if paused {
			return handTo(ctx, intoXL+" -p", in)
		}
		return handTo(ctx, intoXL, in)
	}
	t := &migrate.Target{Side: side}
	if config != "" {
		if t.Config, err = os.ReadFile(config); err != nil {
			return err
		}
	}
	if err := t.Read(ctx, in); err != nil {
		return streamStatus("restore", err)
	}
	if err := t.Own(ctx, paused); err != nil {
		return err
	}
	state := "running"
	if paused {
		state = "complete and paused"
	}
	env.Log.Info().Msgf("domain %d %s", t.Domain.ID, state)
	return nil
}

// handTo has a toolstack make the domain of the stream: it gets the stream as standard input, and our helper.
func handTo(ctx context.Context, command string, in *os.File) error {
	program, err := migrate.Program("xc-restore")
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, "sh", "-c", command)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.Env = append(os.Environ(), "LIBXL_SAVE_HELPER="+program)
	c.Stdin, c.Stdout, c.Stderr = in, os.Stderr, os.Stderr
	var exit *exec.ExitError
	if err := c.Run(); errors.As(err, &exit) {
		return fmt.Errorf("%s: exit status %d", command, exit.ExitCode())
	} else if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}
