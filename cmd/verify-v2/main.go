package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"strconv"

	"github.com/rs/zerolog"

	"xenferry/lib/cli"
	"xenferry/lib/transport"
	"xenferry/lib/verify"
	"xenferry/lib/xcstream"
)

//go:embed doc.go
var doc string

// referenceName is the name of Xen's script, whose contract is kept under it.
const referenceName = "verify-stream-v2"

// referenceHeading is what the script heads a message about an invalid stream with.
const referenceHeading = "Stream Error"

var pageData = xcstream.TypePageData.String()

func main() { cli.Main(doc, run) }

func run(ctx context.Context, env *cli.Env) error {
	reference := env.Name == referenceName
	o, err := parse(env, reference)
	if err != nil {
		return err
	}
	if err := setLog(env, o); err != nil {
		return err
	}
	if reference {
		return referenceStatus(runReference(ctx, env, o))
	}
	if o.compare {
		return runCompare(ctx, env, o)
	}
	return runVerify(ctx, env, o)
}

// setLog sends messages where the options want them.
func setLog(env *cli.Env, o *options) error {
	switch {
	case o.quiet:
		env.Log = zerolog.Nop()
	case o.syslog:
		w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, env.Name)
		if err != nil {
			return fmt.Errorf("connect to the system log: %w", err)
		}
		env.Log = zerolog.New(zerolog.SyslogLevelWriter(w))
	}
	return nil
}

// runVerify is the command under its own name.
func runVerify(ctx context.Context, env *cli.Env, o *options) error {
	opts := verify.Options{Layer: o.layer, Pedantic: o.pedantic, AllowTrailing: o.trailing}
	if _, err := strconv.ParseUint(o.in, 10, 31); err != nil {
		opts.Name = o.in
	}
	out := &output{w: env.Stdout}
	list := &output{w: env.Stdout}
	if o.json {
		list.w = env.Stderr
	}
	report, err := read(ctx, env, o, opts, list)
	if err != nil {
		return err
	}
	switch {
	case o.quiet:
	case o.json:
		out.json(report)
	default:
		out.err = report.WriteText(out.w)
	}
	if out.err != nil {
		return fmt.Errorf("write the report: %w", out.err)
	}
	if !report.Valid {
		return cli.WithStatus(cli.ExitInvalid, report.Error.Err())
	}
	return nil
}

// read verifies the input, and if that is wanted lists the records, in the system log if messages go there.
func read(ctx context.Context, env *cli.Env, o *options, opts verify.Options, out *output) (*verify.Report, error) {
	in, err := openInput(o.in)
	if err != nil {
		return nil, err
	}
	defer in.close()
	src, err := transport.NewReader(ctx, in.fd)
	if errors.Is(err, transport.ErrTerminal) {
		return nil, cli.WithStatus(cli.ExitUsage, err)
	} else if err != nil {
		return nil, fmt.Errorf("input %s: %w", o.in, err)
	}
	if !o.verbose || o.quiet {
		return verify.Verify(src, opts)
	}
	list := &listing{print: func(format string, args ...any) { out.printf(format+"\n", args...) }}
	if o.syslog {
		list.print = func(format string, args ...any) { env.Log.Info().Msgf(format, args...) }
	}
	opts.Record = list.item
	report, err := verify.Verify(src, opts)
	list.flush()
	if err == nil && out.err != nil {
		err = fmt.Errorf("write the list of records: %w", out.err)
	}
	return report, err
}

// runReference is the command under the name of Xen's script.
func runReference(ctx context.Context, env *cli.Env, o *options) error {
	report, err := read(ctx, env, o, verify.Options{Layer: o.layer, AllowTrailing: true}, &output{w: env.Stdout})
	if err == nil && !report.Valid {
		err = fmt.Errorf("%s: %w", referenceHeading, report.Error.Err())
	}
	return err
}

// referenceStatus gives err the exit status that Xen's script has for it: 1, or 2 if it was interrupted.
func referenceStatus(err error) error {
	var interrupted *cli.Interrupted
	if errors.As(err, &interrupted) {
		return cli.WithStatus(cli.ExitUsage, err)
	}
	return err
}

// output writes text or JSON and keeps the first error.
type output struct {
	w   io.Writer
	err error
}

func (o *output) printf(format string, args ...any) {
	if o.err == nil {
		_, o.err = fmt.Fprintf(o.w, format, args...)
	}
}

func (o *output) json(v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		o.err = err
		return
	}
	o.printf("%s\n", b)
}
