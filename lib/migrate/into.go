package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"xenferry/lib/guard"
	"xenferry/lib/guest"
	"xenferry/lib/transport"
	"xenferry/lib/xlstream"
	"xenferry/lib/xlstream/filter"
)

// toolstack is a shell command that makes a domain, with its devices, of what xl save wrote: it gets that as standard input,
// and xc-restore as $LIBXL_SAVE_HELPER. What it prints goes to standard error.
func toolstack(command string, in *os.File) (*exec.Cmd, error) {
	program, err := Program("xc-restore")
	if err != nil {
		return nil, err
	}
	c := exec.Command("sh", "-c", command)
	c.Env = append(os.Environ(), "LIBXL_SAVE_HELPER="+program)
	c.Stdin, c.Stdout, c.Stderr = in, os.Stderr, os.Stderr
	return c, nil
}

// RestoreInto has t.Into make the domain of the stream in, and let it run. After a failure it is gone, unless it has run: then
// it is whole. Without a Host, or a UUID in the configuration, nobody can look for it.
func (t *Target) RestoreInto(ctx context.Context, in *os.File) error {
	src, err := transport.NewReader(ctx, int(in.Fd()))
	if err != nil {
		return err
	}
	h, off, err := filter.ReadXL(src)
	if err != nil {
		return err
	}
	if t.Config != nil {
		h.Config, h.JSON = t.Config, true
	}
	if t.Host == nil || identity(h.Config) == uuid.Nil {
		if err := feed(ctx, t.Into, h, src, off, func(int) error { return nil }); err != nil {
			return fmt.Errorf("%w; whether a domain is left of it is not known", err)
		}
		return nil
	}
	t.state.Spare = true
	if err := t.announce(ctx, guest.Spec{UUID: identity(h.Config)}); err != nil {
		return err
	}
	if err := feed(ctx, t.Into, h, src, off, t.tellGroup); err != nil {
		return t.Undo(ctx, err)
	}
	return nil
}

// endTime is how long a toolstack's command that is told to end may take for what it does then.
const endTime = 10 * time.Second

// feed runs a toolstack's command on header h and the libxl stream that src goes on with at off, through END and not an octet
// more. The command is a process group of its own, whose number started gets, and of which nothing is left after a failure.
// When ctx ends, it is told to end, and killed if it does not.
func feed(ctx context.Context, command string, h *xlstream.XLHeader, src io.Reader, off uint64, started func(group int) error) error {
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	c, err := toolstack(command, in)
	if err == nil {
		c.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
		err = c.Start()
	}
	_ = in.Close()
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	group := c.Process.Pid
	end := func() {
		_ = unix.Kill(-group, unix.SIGTERM)
		guard.Await(group, endTime)
	}
	stop := context.AfterFunc(ctx, end)
	err = started(group)
	if err == nil {
		err = pass(ctx, h, src, off, out)
	}
	_ = out.Close() // without END the command fails, and takes back what it has done
	exit := ended(command, c.Wait())
	stop()
	if err == nil && exit == nil {
		return nil
	}
	end() // the shell has, but perhaps not what it has started
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case exit != nil && errors.Is(err, unix.EPIPE):
		return exit // which is why nobody read on
	}
	return errors.Join(err, exit)
}

// tellGroup tells the guardian who makes the domain.
func (t *Target) tellGroup(group int) error {
	t.state.Group = group
	return t.tell(t.state)
}

func pass(ctx context.Context, h *xlstream.XLHeader, src io.Reader, off uint64, out *os.File) error {
	dst, err := transport.NewWriterUntil(ctx, int(out.Fd()))
	if err != nil {
		return err
	}
	if err := xlstream.NewWriter(dst).XLHeader(*h); err != nil {
		return err
	}
	return filter.Pass(src, dst, off)
}

// ended is the error of a command that ended with err.
func ended(command string, err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.Exited():
		return fmt.Errorf("%s: exit status %d", command, exit.ExitCode())
	}
	return fmt.Errorf("%s: %w", command, err)
}

// hand has t.Into make the domain of a stream whose header is h, under its name for now, and finds it: complete and paused.
func (t *Target) hand(ctx context.Context, src io.Reader, h *xlstream.XLHeader, spec guest.Spec, off uint64) error {
	var err error
	h.Tail = nil // what the source offers is for us
	if h.Config, err = setIdentity(h.Config, spec.Name, spec.UUID); err != nil {
		return err
	}
	if err := t.announce(ctx, spec); err != nil {
		return err
	}
	if err := feed(ctx, t.Into, h, src, off, t.tellGroup); err != nil {
		return err
	}
	d, err := t.newcomer(ctx)
	switch {
	case err != nil:
		return err
	case d == nil:
		return fmt.Errorf("%s: it is done, but there is no new domain of UUID %v", t.Into, spec.UUID)
	}
	if err := t.have(*d); err != nil {
		return err
	}
	if !d.Paused {
		return fmt.Errorf("%s: it let domain %d run, which only its source may allow", t.Into, d.ID)
	}
	return nil
}

// newcomer is the domain that was made since announce; nil if there is none.
func (t *Target) newcomer(ctx context.Context) (*guest.Info, error) {
	all, err := t.Host.Domains(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if d.UUID == t.state.UUID && !d.Dying && !slices.Contains(t.state.Existing, d.ID) {
			return &d, nil
		}
	}
	return nil, nil
}
