package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"xenferry/lib/cli"
	"xenferry/lib/direct"
	"xenferry/lib/migrate"
	"xenferry/lib/outfile"
	"xenferry/lib/transport"
)

func save(ctx context.Context, env *cli.Env, args []string) error {
	var hostSpec, config, leave string
	var live bool
	var timeout time.Duration
	var tune tuning
	flags := cli.Flags(env)
	flags.StringVar(&hostSpec, "host", "", "")
	flags.StringVar(&config, "config", "", "")
	flags.StringVar(&leave, "leave", "", "")
	flags.BoolVar(&live, "live", false, "")
	flags.DurationVar(&timeout, "suspend-timeout", time.Minute, "")
	tune.add(flags)
	words, err := cli.Parse(flags, args)
	if err != nil {
		return err
	}
	if len(words) < 1 || len(words) > 2 {
		return cli.Usagef("save wants a DOMAIN and perhaps a FILE")
	}
	path := append(words, "")[1]
	if tune.into(path) {
		return cli.Usagef("--stats %s: that is the image", tune.stats)
	}
	tuned, err := tune.open(1)
	if err != nil {
		return err
	}
	file, err := openImage(path)
	if err != nil {
		return err
	}
	defer file.discard()
	if leave == "" {
		leave = string(direct.LeaveSuspended)
		if file.lasting {
			leave = string(direct.LeaveDestroyed)
		}
	}
	switch direct.Leave(leave) {
	case direct.LeaveSuspended, direct.LeaveRunning:
	case direct.LeaveDestroyed:
		if !file.lasting {
			return cli.Usagef("--leave destroyed needs a FILE: else nobody knows that the image arrived")
		}
	default:
		return cli.Usagef("--leave %s: want suspended, running or destroyed", leave)
	}
	ctx, side, d, done, err := openSource(ctx, env, hostSpec, "", words[0])
	if err != nil {
		return err
	}
	defer done()
	s := &migrate.Source{Side: side, Domain: d, Live: live, SuspendTimeout: timeout, Tuning: tuned, KeepsRunning: leave == string(direct.LeaveRunning)}
	if s.Head, err = head(ctx, env, &side, d, config); err != nil {
		return err
	}
	state, err := saveTo(ctx, s, file, direct.Leave(leave))
	if err != nil {
		return err
	}
	env.Log.Info().Msgf("domain %d %s; image complete", d.ID, state)
	return nil
}

// saveTo saves s to file, and leaves it as leave says. It returns its state in words.
func saveTo(ctx context.Context, s *migrate.Source, file *image, leave direct.Leave) (string, error) {
	// An image in a file is nobody's until it has its name; one in a pipe is the reader's with its END.
	commit := s.Commit
	if file.lasting || s.KeepsRunning {
		commit = func() error { return nil }
	}
	if err := s.Write(ctx, file.File, commit); err != nil {
		return "", err
	}
	ctx = context.WithoutCancel(ctx)
	if file.lasting {
		if err := file.File.Sync(); err != nil {
			return "", s.Undo(ctx, err)
		}
		if !s.KeepsRunning {
			if err := s.Commit(); err != nil {
				return "", s.Undo(ctx, err)
			}
		}
		if err := file.named.Commit(); err != nil {
			return "", s.Undo(ctx, err)
		}
		if err := syncFolder(file.named.Path()); err != nil {
			return "", fmt.Errorf("%w; domain %d is suspended, and %s complete", err, s.Domain.ID, file.named.Path())
		}
	}
	switch leave {
	case direct.LeaveRunning:
		if err := migrate.Resume(ctx, s.Host, s.Domain); err != nil {
			return "", fmt.Errorf("the image is complete, but: resume domain %d: %w", s.Domain.ID, err)
		}
		return "running", s.Commit()
	case direct.LeaveDestroyed:
		if err := s.Host.Destroy(ctx, s.Domain.ID); err != nil {
			return "", fmt.Errorf("the image is complete, but: destroy domain %d: %w", s.Domain.ID, err)
		}
		return "destroyed", nil
	}
	return "suspended", nil
}

// image is where a domain is saved to.
type image struct {
	*os.File
	named   *outfile.File // nil for standard output
	lasting bool          // File is a regular file of ours
}

// openImage opens where path leads; no path is standard output.
func openImage(path string) (*image, error) {
	if path == "" {
		return &image{File: os.Stdout}, usage(transport.Check(1))
	}
	named, err := outfile.Create(path, 0o600) // guest memory
	if err != nil {
		return nil, err
	}
	return &image{named.File, named, named.Lasting()}, nil
}

// usage gives an error of a descriptor the status of wrong usage.
func usage(err error) error { return cli.WithStatus(cli.ExitUsage, err) }

// syncFolder makes a file's name lasting.
func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// discard removes what has no name.
func (i *image) discard() {
	if i.named != nil {
		i.named.Discard()
	}
}
