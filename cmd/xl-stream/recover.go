package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/google/uuid"

	"xenferry/lib/cli"
	"xenferry/lib/host"
	"xenferry/lib/migrate"
)

// recovering is the options of recover.
type recovering struct {
	host, folder, peer, says, tell string
	list                           bool
	domains                        []string // names or UUIDs; none is all
}

// recovery is the command recover.
func recovery(ctx context.Context, env *cli.Env, args []string) error {
	var r recovering
	if err := r.parse(env, args); err != nil {
		return err
	}
	if r.list {
		return r.print(env)
	}
	h, err := host.Open(ctx, r.host, env.Log)
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	side := &migrate.Side{Host: h, Spec: hostSpec(h), Log: env.Log, Folder: r.folder}
	if r.tell != "" {
		return r.answer(ctx, env, side)
	}
	migrate.Prune(r.folder, env.Log)
	return r.all(ctx, env, side)
}

func (r *recovering) parse(env *cli.Env, args []string) error {
	flags := cli.Flags(env)
	flags.StringVar(&r.host, "host", "", "")
	flags.StringVar(&r.folder, "journal", "", "")
	flags.StringVar(&r.peer, "peer", "", "")
	flags.StringVar(&r.says, "peer-says", "", "")
	flags.StringVar(&r.tell, "tell", "", "")
	flags.BoolVar(&r.list, "list", false, "")
	words, err := cli.Parse(flags, args)
	if err == nil {
		r.folder, err = journalFolder(r.folder)
	}
	switch {
	case err != nil:
		return err
	case len(words) > 0 && (r.list || r.tell != ""):
		return cli.Usagef("no DOMAIN such as %q goes with --list", words[0])
	case r.says != "" && answers[migrate.Step(r.says)] == "":
		return cli.Usagef("--peer-says %s: want running or refused of a target, given or kept of a source", r.says)
	case r.peer != "" && r.says != "":
		return cli.Usagef("--peer and --peer-says exclude each other")
	}
	r.domains = words
	return nil
}

// print lists the journals, an object of JSON a line.
func (r *recovering) print(env *cli.Env) error {
	all, err := migrate.List(r.folder)
	out := json.NewEncoder(env.Stdout)
	for _, e := range all {
		err = errors.Join(err, out.Encode(e))
	}
	return err
}

// all recovers what senders and receivers on this host left.
func (r *recovering) all(ctx context.Context, env *cli.Env, side *migrate.Side) error {
	entries, err := r.chosen(side)
	if err != nil && entries == nil {
		return err
	}
	errs := []error{err}
	for _, e := range entries {
		var state migrate.Step
		if e.Side == migrate.SourceSide {
			state, err = migrate.RecoverSource(ctx, side, e.UUID, r.ask)
		} else {
			state, err = migrate.RecoverTarget(ctx, side, e.UUID, e.ID, "", r.ask)
		}
		switch {
		case errors.Is(err, migrate.ErrUnknown): // finished meanwhile
		case err != nil:
			errs = append(errs, err)
		default:
			says := where[e.Side][state]
			if strings.HasPrefix(says, "here") {
				says = side.Now(ctx, e.Record) + " " + says
			}
			env.Log.Info().Msgf("domain %v %s", e.UUID, says)
		}
	}
	return errors.Join(errs...)
}

// chosen are the journals of hand-overs that are not over, all or of some domains. The error, beside some, is of others that
// cannot be read.
func (r *recovering) chosen(side *migrate.Side) (chosen []migrate.Entry, err error) {
	all, err := migrate.List(r.folder)
	found := make([]bool, len(r.domains))
	for _, e := range all {
		mine := len(r.domains) == 0
		for i, word := range r.domains {
			if word == e.Name || word == e.UUID.String() {
				mine, found[i] = true, true
			}
		}
		if mine && e.Unfinished(side) {
			chosen = append(chosen, e)
		}
	}
	for i, word := range r.domains {
		if !found[i] {
			return nil, errors.Join(err, fmt.Errorf("no hand-over of a domain %q is recorded in %s", word, r.folder))
		}
	}
	if r.says == "" {
		return chosen, err
	}
	var asked []string // that the answer could be taken for
	for _, e := range chosen {
		if answers[migrate.Step(r.says)] == e.Side {
			asked = append(asked, fmt.Sprintf("%s (%v)", e.Name, e.UUID))
		}
	}
	if len(asked) > 1 {
		return nil, cli.Usagef("--peer-says %s is an answer for one domain: name it, %s", r.says, strings.Join(asked, " or "))
	}
	return chosen, err
}

// where says what became of a domain; before "here" goes what it does.
var where = map[string]map[migrate.Step]string{
	migrate.SourceSide: {
		migrate.Running: "runs on the target; the old copy is destroyed",
		migrate.Kept:    "here, at the source",
		migrate.Refused: "is on neither side",
	},
	migrate.TargetSide: {
		migrate.Running: "here, at the target",
		migrate.Refused: "is not here, and was not given",
	},
}

// answers are what the other side may say, and of whom it is said.
var answers = map[migrate.Step]string{
	migrate.Running: migrate.SourceSide, migrate.Refused: migrate.SourceSide,
	migrate.Given: migrate.TargetSide, migrate.Kept: migrate.TargetSide,
}

// ask asks the other side by --peer, or takes what --peer-says.
func (r *recovering) ask(ctx context.Context, j migrate.Record, says migrate.Step) (migrate.Step, error) {
	asks := migrate.SourceSide
	if says == migrate.Held {
		asks = migrate.TargetSide
	}
	switch {
	case r.peer != "":
		return askPeer(ctx, r.peer, j, says)
	case says == migrate.Forgotten:
		return "", nil
	case answers[migrate.Step(r.says)] == asks:
		return migrate.Step(r.says), nil
	case says == migrate.Kept && j.Step == migrate.Given: // told by --peer-says that it is not there
		return migrate.Refused, nil
	}
	return "", errors.New("give --peer, such as 'ssh HOST xl-stream recover', or look there and give --peer-says")
}

// askPeer asks xl-stream recover on the other side, and tells it what this side knows.
func askPeer(ctx context.Context, command string, r migrate.Record, says migrate.Step) (migrate.Step, error) {
	of := migrate.TargetSide
	if says == migrate.Held {
		of = migrate.SourceSide
	}
	c := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf("%s --tell %s,%v,%v,%s", command, of, r.UUID, r.ID, says))
	c.Stderr = os.Stderr
	answer, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	switch step := strings.TrimSpace(string(answer)); step {
	case unknown:
		return "", fmt.Errorf("%s: %w", command, migrate.ErrPeerUnknown)
	case busy:
		return "", fmt.Errorf("%s: %w", command, migrate.ErrBusy)
	default:
		return migrate.Step(step), nil
	}
}

// What a side answers that has no record, or whose record somebody else has.
const (
	unknown = "unknown"
	busy    = "busy"
)

// answer answers the other side's askPeer, after it finished what it can.
func (r *recovering) answer(ctx context.Context, env *cli.Env, side *migrate.Side) error {
	part := strings.Split(r.tell, ",")
	if len(part) != 4 || part[3] == "" {
		return cli.Usagef("--tell %s: want SIDE,DOMAIN,HAND-OVER,STEP", r.tell)
	}
	domain, err := uuid.Parse(part[1])
	id, e := uuid.Parse(part[2])
	if err = errors.Join(err, e); err != nil {
		return cli.Usagef("--tell %s: %v", r.tell, err)
	}
	var step migrate.Step
	if part[0] == migrate.SourceSide {
		step, err = migrate.AnswerSource(ctx, side, domain, id)
	} else {
		step, err = migrate.RecoverTarget(ctx, side, domain, id, migrate.Step(part[3]), nil)
	}
	switch {
	case errors.Is(err, migrate.ErrUnknown):
		step, err = unknown, nil
	case errors.Is(err, migrate.ErrBusy):
		step, err = busy, nil
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.Stdout, step)
	return err
}
