package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/google/uuid"

	"xenferry/lib/cli"
	"xenferry/lib/host"
	"xenferry/lib/migrate"
)

// recovery is the command recover.
func recovery(ctx context.Context, env *cli.Env, args []string) error {
	var hostSpec, folder, peer, says, tell string
	flags := cli.Flags(env)
	flags.StringVar(&hostSpec, "host", "", "")
	flags.StringVar(&folder, "journal", "", "")
	flags.StringVar(&peer, "peer", "", "")
	flags.StringVar(&says, "peer-says", "", "")
	flags.StringVar(&tell, "tell", "", "")
	words, err := cli.Parse(flags, args)
	if err == nil {
		folder, err = journalFolder(folder)
	}
	switch {
	case err != nil:
		return err
	case len(words) > 0:
		return cli.Usagef("recover takes no word such as %q", words[0])
	case says != "" && says != string(migrate.Running) && says != string(migrate.Refused):
		return cli.Usagef("--peer-says %s: want running or refused", says)
	case peer != "" && says != "":
		return cli.Usagef("--peer and --peer-says exclude each other")
	}
	h, err := host.Open(ctx, hostSpec, env.Log)
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	side := &migrate.Side{Host: h, Log: env.Log, Folder: folder}
	if tell != "" {
		id, err := uuid.Parse(tell)
		if err != nil {
			return cli.Usagef("--tell %s: %v", tell, err)
		}
		step, err := migrate.RecoverTarget(ctx, side, id)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(env.Stdout, step)
		return err
	}
	ids, err := migrate.Sources(folder)
	errs := []error{err}
	for _, id := range ids {
		state, err := migrate.RecoverSource(ctx, side, id, func(ctx context.Context, r migrate.Record) (migrate.Step, error) {
			if says != "" {
				return migrate.Step(says), nil
			}
			return askPeer(ctx, peer, r)
		})
		switch {
		case errors.Is(err, fs.ErrNotExist): // finished meanwhile
		case err != nil:
			errs = append(errs, err)
		default:
			env.Log.Info().Msgf("domain %v %s", id, where[state])
		}
	}
	return errors.Join(errs...)
}

// where says what became of a source's domain.
var where = map[migrate.Step]string{migrate.Running: "runs on the target; the old copy is destroyed", migrate.Refused: "is the source's again"}

// askPeer asks xl-stream recover on the target.
func askPeer(ctx context.Context, command string, r migrate.Record) (migrate.Step, error) {
	if command == "" {
		return "", errors.New("give --peer, such as 'ssh HOST xl-stream recover', or look there and give --peer-says")
	}
	c := exec.CommandContext(ctx, "sh", "-c", command+" --tell "+r.UUID.String())
	c.Stderr = os.Stderr
	answer, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	return migrate.Step(strings.TrimSpace(string(answer))), nil
}
