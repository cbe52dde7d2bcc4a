package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"xenferry/lib/helper"
	"xenferry/lib/host"
	"xenferry/lib/progress"
)

// Program finds one of our programs: beside this one, else in PATH.
func Program(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if unix.Access(beside, unix.X_OK) == nil {
			return beside, nil
		}
	}
	return exec.LookPath(name)
}

// worker is xc-save or xc-restore as the helper of this process, which is libxl to it: the stream's descriptor is the
// child's alone while it runs.
type worker struct {
	program string
	host    string // as --host has it
	log     zerolog.Logger
	tuning  Tuning
	// answer answers a message that wants a reply, and is told of all others but for log and progress.
	answer func(ctx context.Context, m *helper.Message) (int32, error)

	rounds int // that it has begun
}

// Descriptors of a worker: the stream, which its command line names, and the statistics.
const (
	stream     = 3
	statistics = 4
)

// Tuning is what xc-save is told beyond libxl's command line.
type Tuning struct {
	Settings []string // as in an environment, of those that helper names
	Stats    *os.File // where statistics go, as progress.Event; nil for nowhere
}

// tell adds an event to the statistics, which are a courtesy.
func (t *Tuning) tell(e progress.Event) {
	if t.Stats != nil {
		_ = json.NewEncoder(t.Stats).Encode(e)
	}
}

// run runs the worker on f until it ends. words follow the descriptor in libxl's command line. When ctx ends the worker is
// told to stop, and undoes what it did.
func (w *worker) run(ctx context.Context, f *os.File, words string, args ...any) error {
	path, err := Program(w.program)
	if err != nil {
		return err
	}
	repliesR, repliesW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = repliesW.Close() }()
	messagesR, messagesW, err := os.Pipe()
	if err != nil {
		_ = repliesR.Close()
		return err
	}
	defer func() { _ = messagesR.Close() }()
	c := exec.Command(path, strings.Fields(fmt.Sprintf(words, args...))...)
	c.Stdin, c.Stdout, c.Stderr, c.ExtraFiles = repliesR, messagesW, os.Stderr, []*os.File{f}
	c.Env = append(os.Environ(), w.tuning.Settings...)
	if w.tuning.Stats != nil {
		c.ExtraFiles = append(c.ExtraFiles, w.tuning.Stats)
		c.Env = append(c.Env, fmt.Sprintf("%s=fd:%d", helper.StatsEnv, statistics))
	}
	if w.host != "" {
		c.Env = append(c.Env, host.HelperEnv+"="+w.host)
	}
	err = c.Start()
	_, _ = repliesR.Close(), messagesW.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", w.program, err)
	}
	defer context.AfterFunc(ctx, func() { _ = c.Process.Signal(unix.SIGTERM) })()
	result, err := w.converse(ctx, messagesR, repliesW)
	if err != nil {
		_ = messagesR.Close() // the worker sees that nobody listens, and undoes what it did
		_ = repliesW.Close()
	}
	exit := c.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return errors.Join(err, exit)
	case result == nil:
		return fmt.Errorf("%s ended before it was done: %w", w.program, errors.Join(exit, io.ErrUnexpectedEOF))
	case result.Numbers[0] != 0:
		return fmt.Errorf("%s failed: %w", w.program, unix.Errno(result.Numbers[1]))
	case exit != nil:
		return fmt.Errorf("%s: %w", w.program, exit)
	}
	return nil
}

// converse answers a worker until it ends. The result is its last message, nil if that did not come. The first answer that
// fails is the error.
func (w *worker) converse(ctx context.Context, messages io.Reader, replies io.Writer) (result *helper.Message, err error) {
	for {
		m, e := helper.ReadMessage(messages, helper.Numbering414)
		switch {
		case errors.Is(e, io.EOF):
			return result, err
		case e != nil:
			return nil, errors.Join(err, e)
		}
		switch m.Kind {
		case helper.Log:
			w.tell(m)
			continue
		case helper.Progress:
			if done, total := m.Numbers[0], m.Numbers[1]; done == 0 && total > 0 {
				w.rounds++
			}
			continue
		case helper.Complete:
			result = m
		}
		reply := int32(0)
		if m.Kind != helper.Complete {
			r, e := w.answer(ctx, m)
			if reply = r; e != nil && err == nil {
				err = fmt.Errorf("%v: %w", m.Kind, e)
			}
		}
		if m.Kind.WantsReply() {
			if e := helper.Reply(replies, reply); e != nil {
				return result, err // it has ended: the next read says so
			}
		}
	}
}

// levels are those of the log for those of libxl.
var levels = map[uint64]zerolog.Level{
	uint64(helper.LevelWarn): zerolog.WarnLevel, uint64(helper.LevelError): zerolog.ErrorLevel, uint64(helper.LevelInfo): zerolog.InfoLevel,
}

// tell logs what the worker logs. What it says in libxc's name is for front ends of libxl.
func (w *worker) tell(m *helper.Message) {
	level, ok := levels[m.Numbers[0]]
	if !ok || m.Texts[0] == helper.ContextLibxc {
		level = zerolog.DebugLevel
	}
	w.log.WithLevel(level).Msgf("%s: %s", w.program, m.Texts[1])
}
