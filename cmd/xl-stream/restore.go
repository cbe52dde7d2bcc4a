package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/pflag"

	"xenferry/lib/cli"
	"xenferry/lib/host"
	"xenferry/lib/migrate"
	"xenferry/lib/sim"
	"xenferry/lib/transport"
)

func restore(ctx context.Context, env *cli.Env, args []string) error {
	var hostSpec, config string
	var paused bool
	var into into
	flags := cli.Flags(env)
	flags.StringVar(&hostSpec, "host", "", "")
	flags.StringVar(&config, "config", "", "")
	into.flag(flags)
	flags.BoolVar(&paused, "paused", false, "")
	words, err := cli.Parse(flags, args)
	switch {
	case err != nil:
		return err
	case len(words) > 1:
		return cli.Usagef("restore wants one FILE at most")
	case into.command != "" && paused:
		return cli.Usagef("--paused is for what --into runs to know")
	}
	var replaced []byte
	if config != "" {
		if replaced, err = os.ReadFile(config); err != nil {
			return err
		}
	}
	in := os.Stdin
	if len(words) == 1 {
		if in, err = os.Open(words[0]); err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
	}
	if err := transport.Check(int(in.Fd())); err != nil {
		return usage(fmt.Errorf("%s: %w", in.Name(), err))
	}
	ctx, side, done, err := open(ctx, env, hostSpec, "")
	switch {
	case err == nil:
		defer done()
	case into.command == "":
		return err
	default:
		env.Log.Warn().Err(err).Msg("nobody looks for what --into leaves if it fails")
		side = migrate.Side{Log: env.Log}
	}
	t := &migrate.Target{Side: side, Config: replaced, Into: into.command}
	if into.byXL(side.Host) {
		t.Into = "xl restore /proc/self/fd/0"
		if paused {
			t.Into = "xl restore -p /proc/self/fd/0"
		}
	}
	if t.Into != "" {
		if err := t.RestoreInto(ctx, in); err != nil {
			return streamStatus("restore", err)
		}
		return nil
	}
	if err := t.Read(ctx, in); err != nil {
		return streamStatus("restore", err)
	}
	if !paused {
		if err := t.Alone(ctx); err != nil {
			return err
		}
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

// into is the option --into: the command that makes a domain in place of this program.
type into struct {
	command string
	option  *pflag.Flag
}

func (i *into) flag(flags *pflag.FlagSet) {
	flags.StringVar(&i.command, "into", "", "")
	i.option = flags.Lookup("into")
}

// byXL reports whether xl makes the domain, as nothing else was asked for: on a real host that has it, for devices and an
// emulator are a toolstack's matter, and a domain that xl did not make it cannot save.
func (i *into) byXL(h host.Host) bool {
	_, simulated := h.(*sim.Client)
	_, err := exec.LookPath("xl")
	return !i.option.Changed && !simulated && err == nil
}
