package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/syslog"
	"os"
	"time"

	"xenferry/lib/cli"
	"xenferry/lib/legacy"
	"xenferry/lib/record"
	"xenferry/lib/transport"
)

//go:embed doc.go
var doc string

func main() { cli.Main(doc, run) }

// patience is how long a conversion may take to end after a signal before it is left where it is.
const patience = time.Second

func run(ctx context.Context, env *cli.Env) error {
	o, err := parse(env)
	if err != nil {
		return err
	}
	if err := o.missing(); err != nil {
		fmt.Fprint(env.Stderr, cli.Usage(doc))
		return err
	}
	logs := openLogs(env, o)
	err = convertTo(ctx, logs, o)
	if err != nil {
		logs.failed(err)
	}
	if errors.Is(err, legacy.ErrUnsupported) && !o.convert.Salvage {
		return cli.Refused(err)
	}
	return err
}

// convertTo converts, and leaves the output as the outcome demands.
func convertTo(ctx context.Context, logs *logs, o *options) error {
	out := &output{name: o.out}
	done := make(chan error, 1)
	go func() { done <- convert(ctx, logs, o, out) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done: // it was waiting for input
		case <-time.After(patience): // it waits for room in the output, or for somebody to open it
			err = context.Cause(ctx)
		}
	}
	var damaged *salvaged
	if err != nil && !errors.As(err, &damaged) {
		return out.abandon(err)
	}
	return err
}

// salvaged is the error of an image that was damaged, and whose output stays.
type salvaged struct{ err error }

func (s *salvaged) Error() string { return s.err.Error() }
func (s *salvaged) Unwrap() error { return s.err }

// convert opens both ends, converts, and closes the output.
func convert(ctx context.Context, logs *logs, o *options, out *output) (err error) {
	in, err := openInput(o.in)
	if err != nil {
		return err
	}
	defer in.close()
	if there, err := os.Stat(o.out); err == nil && o.convert.Salvage && os.SameFile(there, in.info) {
		return cli.Usagef("--salvage cannot replace the image by what is whole of it: --out must be another file")
	}
	if err := out.open(in); err != nil {
		return err
	}
	src, err := transport.NewReader(ctx, in.fd)
	if err != nil {
		return fmt.Errorf("input %s: %w", o.in, err)
	}
	dst, err := transport.NewWriter(out.fd)
	if err != nil {
		return fmt.Errorf("output %s: %w", o.out, err)
	}
	how := o.convert
	how.Spool = newSpool
	rep, err := openReport(o.report)
	if err != nil {
		return err
	}
	how.Event = func(e legacy.Event) { rep.event(e); logs.event(e) }

	image := legacy.NewReader(src, o.read)
	result, err := legacy.Convert(dst, image, how)
	logs.layout(o, image)
	damaged := record.IsInvalid(err) || errors.Is(err, legacy.ErrUnsupported)
	err = errors.Join(err, rep.close(image.Layout(), result, err))
	if damaged && how.Salvage {
		if result.Missing != "" {
			logs.env.Log.Warn().Msg("missing in the output: " + result.Missing)
		}
		return &salvaged{errors.Join(err, out.commit())}
	}
	if err != nil {
		return err
	}
	return out.commit()
}

// logs is where lines for people go.
type logs struct {
	env     *cli.Env
	syslog  *syslog.Writer // nil if not asked for, or not there
	verbose bool
	quiet   bool // verbose lines go to the system log only
}

func openLogs(env *cli.Env, o *options) *logs {
	l := &logs{env: env, verbose: o.verbose, quiet: o.syslog}
	if o.syslog {
		var err error
		if l.syslog, err = syslog.New(syslog.LOG_USER|syslog.LOG_INFO, referenceName); err != nil {
			env.Log.Warn().Err(err).Msg("no system log")
		}
	}
	return l
}

// failed writes an error to the system log; standard error gets it in any case.
func (l *logs) failed(err error) {
	if l.syslog != nil {
		_ = l.syslog.Err(err.Error())
	}
}

// layout says what was found out.
func (l *logs) layout(o *options, image *legacy.Reader) {
	said, found := o.read.Layout, image.Layout()
	switch {
	case found.Width == 0 || found.Domain == 0, said.Width != 0 && said.Domain != 0:
	case image.Certain():
		l.env.Log.Info().Msgf("the image has %v", found)
	default:
		l.env.Log.Warn().Msgf("the image looks like %v; where that is wrong, -w and -g say so", found)
	}
}

// event writes a line about a part, if lines are asked for. Page batches are many, and have none.
func (l *logs) event(e legacy.Event) {
	if _, batch := e.Item.(*legacy.Batch); !l.verbose || batch {
		return
	}
	line := fmt.Sprintf("%#10x  %v", e.Offset, e.Item)
	if e.Dropped != "" {
		line += " (dropped: " + e.Dropped + ")"
	}
	switch {
	case l.syslog != nil:
		_ = l.syslog.Info(line)
	case !l.quiet:
		fmt.Fprintln(l.env.Stdout, line)
	}
}
