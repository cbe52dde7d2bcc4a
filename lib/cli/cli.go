// Package cli is what the mains share: usage text, the log on stderr, signals and exit statuses.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// Exit statuses of our own modes. A drop-in mode has those of what it stands in for.
const (
	ExitDone    = 0
	ExitFailed  = 1
	ExitUsage   = 2
	ExitInvalid = 3
)

// StatusError is an error with the exit status that it shall have.
type StatusError struct {
	Status int
	Err    error
	plain  bool // usage would not help, though the status is ExitUsage
}

func (e *StatusError) Error() string { return e.Err.Error() }
func (e *StatusError) Unwrap() error { return e.Err }

// Usagef is an error of wrong usage.
func Usagef(format string, args ...any) error {
	return &StatusError{Status: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// WithStatus gives err an exit status; nil stays nil.
func WithStatus(status int, err error) error {
	if err == nil {
		return nil
	}
	return &StatusError{Status: status, Err: err}
}

// Refused gives err the status of wrong usage, as some of Xen's scripts have it for input that they cannot do, without the
// text of usage.
func Refused(err error) error { return &StatusError{Status: ExitUsage, Err: err, plain: true} }

// Interrupted is the cancellation cause of a command's context after a signal.
type Interrupted struct{ Signal os.Signal }

func (i *Interrupted) Error() string {
	if s, ok := i.Signal.(unix.Signal); ok {
		return "interrupted by " + unix.SignalName(s)
	}
	return fmt.Sprintf("interrupted by %v", i.Signal)
}

// Env is what a command runs in.
type Env struct {
	Name   string // the last element of argv[0]
	Args   []string
	Log    zerolog.Logger
	Stdout io.Writer
	Stderr io.Writer
}

// Main runs a command and exits with its status. doc is the command's doc.go, whose comment is its usage. run gets a
// context that SIGTERM cancels, and SIGINT and SIGHUP unless the caller has them ignored, as nohup does; a broken pipe is an
// error where it is written to, not a signal.
func Main(doc string, run func(ctx context.Context, env *Env) error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM) // also where libxl's children inherit it as ignored
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() { cancel(&Interrupted{<-signals}) }()
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)

	name := filepath.Base(os.Args[0])
	env := &Env{Name: name, Args: os.Args[1:], Log: NewLog(os.Stderr, name), Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(Status(env, doc, run(ctx, env)))
}

// Status reports err as a command does, and returns the exit status it stands for.
func Status(env *Env, doc string, err error) int {
	var status *StatusError
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(env.Stdout, Usage(doc))
		return ExitDone
	case errors.Is(err, errVersion):
		fmt.Fprintf(env.Stdout, "%s %s\n", env.Name, version())
		return ExitDone
	case errors.As(err, &status) && status.Status == ExitUsage && !status.plain:
		fmt.Fprintf(env.Stderr, "%s: %v\n%s", env.Name, err, synopsis(doc))
		return ExitUsage
	case status != nil:
		env.Log.Error().Msg(err.Error())
		return status.Status
	}
	env.Log.Error().Msg(err.Error())
	return ExitFailed
}

// NewLog returns a log of plain lines for people: the command's name, the message, and its fields. $XENFERRY_LOG is the
// least level that it shows, such as debug; without it that is info.
func NewLog(w io.Writer, name string) zerolog.Logger {
	level, err := zerolog.ParseLevel(os.Getenv("XENFERRY_LOG"))
	if err != nil || level == zerolog.NoLevel {
		level = zerolog.InfoLevel
	}
	return zerolog.New(zerolog.ConsoleWriter{
		Out: w, NoColor: true,
		PartsOrder: []string{zerolog.LevelFieldName, zerolog.MessageFieldName},
		FormatLevel: func(level any) string {
			switch level {
			case zerolog.LevelInfoValue, nil:
				return name + ":"
			default:
				return fmt.Sprintf("%s: %v:", name, level)
			}
		},
	}).Level(level)
}

// Flags returns a flag set that reports errors instead of printing them, for Parse.
func Flags(env *Env) *pflag.FlagSet {
	flags := pflag.NewFlagSet(env.Name, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	flags.SortFlags = false
	versionFlag(flags)
	return flags
}

// Parse parses args; what is wrong with them is an error of usage. It returns the positional words.
func Parse(flags *pflag.FlagSet, args []string) ([]string, error) {
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil, err
		}
		return nil, &StatusError{Status: ExitUsage, Err: err}
	}
	if asked, _ := flags.GetBool("version"); asked {
		return nil, errVersion
	}
	return flags.Args(), nil
}

// Usage is the text of a doc.go's comment.
func Usage(doc string) string {
	var b strings.Builder
	for line := range strings.Lines(doc) {
		if !strings.HasPrefix(line, "//") {
			break
		}
		b.WriteString(strings.TrimPrefix(strings.TrimPrefix(line, "//"), " "))
	}
	return b.String()
}

// synopsis is the usage lines of a doc.go: those from "usage:" to the next empty one.
func synopsis(doc string) string {
	_, text, ok := strings.Cut(Usage(doc), "usage:")
	if !ok {
		return ""
	}
	text, _, _ = strings.Cut(text, "\n\n")
	return "usage:" + strings.TrimRight(text, "\n") + "\nFor more: -h\n"
}

// CloseOnExec keeps the descriptors that this process was given, beyond the first three, from every process it starts:
// a stream that a helper holds open hides its end.
func CloseOnExec() {
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
}
