package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"xenferry/lib/cli"
	"xenferry/lib/record"
	"xenferry/lib/transport"
	"xenferry/lib/xlstream/filter"
)

func unwrap(ctx context.Context, env *cli.Env, args []string) (err error) {
	var config, emulator, xenstore output
	flags := cli.Flags(env)
	flags.StringVar(&config.path, "config-out", "", "")
	flags.StringVar(&emulator.path, "emulator-out", "", "")
	flags.StringVar(&xenstore.path, "xenstore-out", "", "")
	words, err := cli.Parse(flags, args)
	if err != nil {
		return err
	}
	if len(words) > 0 {
		return cli.Usagef("unwrap takes no word such as %q: the stream is standard input", words[0])
	}
	in, err := transport.NewReader(ctx, int(os.Stdin.Fd()))
	if err != nil {
		return streamStatus("standard input", err)
	}
	out, err := transport.NewWriter(int(os.Stdout.Fd()))
	if err != nil {
		return streamStatus("standard output", err)
	}
	outputs := []*output{&config, &emulator, &xenstore}
	defer func() {
		for _, o := range outputs {
			o.discard()
		}
	}()
	err = filter.Unwrap(in, filter.Outputs{
		Image: out, Config: config.opener(), Emulator: emulator.opener(), Xenstore: xenstore.opener(),
	})
	if err != nil {
		return streamStatus("unwrap", err)
	}
	for _, o := range outputs {
		err = errors.Join(err, o.commit())
	}
	return err
}

// streamStatus gives err, which what failed with, its exit status.
func streamStatus(what string, err error) error {
	failed := fmt.Errorf("%s: %w", what, err)
	switch {
	case errors.Is(err, transport.ErrTerminal):
		return cli.WithStatus(cli.ExitUsage, failed)
	case record.IsInvalid(err), errors.Is(err, unix.EBADMSG): // the latter is what xc-restore, as a helper, says of the guest's stream
		return cli.WithStatus(cli.ExitInvalid, failed)
	}
	return failed
}
