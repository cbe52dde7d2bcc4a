package direct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/rs/zerolog"

	"xenferry/lib/emulator"
	"xenferry/lib/guard"
	"xenferry/lib/guest"
	"xenferry/lib/handover"
	"xenferry/lib/host"
	"xenferry/lib/progress"
	"xenferry/lib/save"
	"xenferry/lib/x86"
)

// Leave says what becomes of a saved domain on its old host.
type Leave string

// The states to leave a domain in. A domain that was suspended before is left so by LeaveRunning too.
const (
	LeaveSuspended Leave = "suspended"
	LeaveRunning   Leave = "running"
	LeaveDestroyed Leave = "destroyed"
)

// Stream is where the image goes.
type Stream interface {
	io.Writer
	Sync() error
}

// SaveOptions say how Save saves.
type SaveOptions struct {
	save.Options
	Stream         Stream
	Durable        bool          // Stream is a file: it is made lasting before the image counts as complete
	Ack            io.Reader     // the way back from the target; nil for none
	Hold           func() bool   // keeps Ack from ending with Save's context; false if it has ended so already
	Leave          Leave         // with Ack, only destroyed and suspended have a meaning
	SuspendTimeout time.Duration // how long the guest may take to suspend
}

// Guardian is told what there is to undo.
type Guardian interface{ Tell(guard.State) error }

// saving is one save, and the save.Control of it.
type saving struct {
	h     host.Host
	d     guest.Info
	opt   SaveOptions
	guard Guardian
	meter *progress.Meter

	emulator  emulator.Emulator // nil where there is none
	state     guard.State       // what the guardian was told last
	asked     bool              // to suspend: it may be, and is ours to resume
	committed bool
	moved     bool // the target runs the domain
}

// Save writes domain d to the stream and leaves it as the options say. Whatever happens, the last line of the log, or the
// error, says in which state the domain is when it returns.
func Save(ctx context.Context, h host.Host, d guest.Info, opt SaveOptions, g Guardian, log zerolog.Logger, meter *progress.Meter) error {
	s := &saving{h: h, d: d, opt: opt, guard: g, meter: meter, state: guard.State{Domain: d.ID, UUID: d.UUID}}
	if err := s.accept(ctx); err != nil {
		return err
	}
	state, err := "", s.run(ctx)
	if err == nil {
		state, err = s.leave(ctx)
	}
	if err != nil {
		err = s.failed(context.WithoutCancel(ctx), err)
	}
	meter.Close(err == nil)
	if err == nil {
		log.Info().Msgf("domain %d %s", d.ID, state)
	}
	return err
}

// Check is what Save begins with: it refuses what cannot be saved, and changes nothing. The state is "running" or "suspended".
func Check(ctx context.Context, h host.Host, d guest.Info) (state string, err error) {
	s := &saving{h: h, d: d}
	if err := s.accept(ctx); err != nil {
		return "", err
	}
	if d.Suspended() {
		return "suspended", nil
	}
	return "running", nil
}

// accept refuses what cannot be saved.
func (s *saving) accept(ctx context.Context) error {
	switch {
	case s.d.Dying:
		return fmt.Errorf("domain %d is dying", s.d.ID)
	case s.d.Shutdown && !s.d.Suspended():
		return fmt.Errorf("domain %d has shut down (%v): only a domain that runs or is suspended can be saved", s.d.ID, s.d.Reason)
	case s.d.Paused && !s.d.Shutdown:
		return fmt.Errorf("domain %d is paused and cannot suspend itself: unpause it first", s.d.ID)
	case s.d.LogDirty:
		return fmt.Errorf("domain %d has a log of dirty pages already: is it being saved?", s.d.ID)
	}
	if judge, ok := s.h.(host.Judge); ok {
		if err := judge.Saveable(ctx, s.d.ID); err != nil {
			return err
		}
	}
	if s.d.Kind.PV() {
		return nil
	}
	switch nested, err := x86.Nested(ctx, s.h, s.d.ID); {
	case err != nil:
		return err
	case nested:
		return fmt.Errorf("domain %d may run virtual machines of its own (nestedhvm), whose state cannot be saved", s.d.ID)
	}
	return s.reachEmulator(ctx)
}

// reachEmulator refuses an HVM domain whose emulator cannot be stopped: it writes to the guest's memory, also to pages that
// are saved already.
func (s *saving) reachEmulator(ctx context.Context) error {
	if s.emulator = emulator.Open(s.h, s.d); s.emulator == nil {
		return nil
	}
	if err := s.emulator.Check(ctx); err != nil {
		return fmt.Errorf("domain %d is of kind hvm, and its emulator cannot be told to stop: %w (xl save, with this program as its helper, "+
			"knows other emulators, too)", s.d.ID, err)
	}
	s.state.Emulator = true
	return nil
}

// run does everything up to END.
func (s *saving) run(ctx context.Context) error {
	g, err := x86.OpenSave(ctx, s.h, s.d.ID)
	if err != nil {
		return err
	}
	defer func() { _ = g.Close() }()
	g.Alone()
	if s.d.Suspended() {
		s.opt.Live = false
	}
	s.opt.Logging = func(on bool) error { return s.setLog(context.WithoutCancel(ctx), on) }
	return save.Run(ctx, g, s.opt.Stream, s.opt.Options, s, s.meter)
}

// tell changes the state that the guardian knows.
func (s *saving) tell(change func(*guard.State)) error {
	change(&s.state)
	return s.guard.Tell(s.state)
}

// setLog follows Xen's log of dirty pages: the guardian has to know of it, and the emulator, whose writes Xen does not see,
// reports them for as long.
func (s *saving) setLog(ctx context.Context, on bool) error {
	if on {
		if err := s.tell(func(st *guard.State) { st.StopLog = true }); err != nil {
			return err
		}
	}
	if s.emulator != nil {
		if err := s.emulator.SetDirtyLog(ctx, on); err != nil {
			return err
		}
	}
	if on {
		return nil
	}
	return s.tell(func(st *guard.State) { st.StopLog = false })
}

// Suspend implements save.Control. Nothing writes to the guest's memory once it returns.
func (s *saving) Suspend(ctx context.Context) error {
	if !s.d.Suspended() {
		if err := s.suspend(ctx); err != nil {
			return err
		}
	}
	if s.emulator == nil {
		return nil
	}
	// Not to be interrupted: a request on its way could be obeyed after the one to go on.
	return s.emulator.Stop(context.WithoutCancel(ctx))
}

func (s *saving) suspend(ctx context.Context) error {
	if err := s.tell(func(st *guard.State) { st.Resume = true }); err != nil {
		return err
	}
	s.asked = true
	ctx, cancel := context.WithTimeoutCause(ctx, s.opt.SuspendTimeout, fmt.Errorf("the guest did not suspend within %v", s.opt.SuspendTimeout))
	defer cancel()
	if err := s.h.Suspend(ctx, s.d.ID); err != nil {
		return err
	}
	info, err := s.h.Info(ctx, s.d.ID)
	if err == nil && !info.Suspended() {
		err = fmt.Errorf("domain %d did not suspend: it has shut down (%v)", s.d.ID, info.Reason)
	}
	return err
}

// Commit implements save.Control. Where there is a way back, or the domain runs on here anyway, END decides nothing.
func (s *saving) Commit(context.Context) error {
	if s.opt.Durable {
		if err := s.opt.Stream.Sync(); err != nil {
			return err
		}
	}
	if s.opt.Ack != nil || s.opt.Leave == LeaveRunning {
		return nil
	}
	return s.commit()
}

// commit gives up the right to let the domain run here.
func (s *saving) commit() error {
	if err := s.tell(func(st *guard.State) { st.Resume = false }); err != nil {
		return err
	}
	s.committed = true
	return nil
}

// leave ends a save whose image is written. It returns the state of the domain in words.
func (s *saving) leave(ctx context.Context) (string, error) {
	if s.opt.Durable {
		if err := s.opt.Stream.Sync(); err != nil {
			return "", err
		}
	}
	if s.opt.Ack != nil {
		return s.handOver(ctx)
	}
	ctx = context.WithoutCancel(ctx) // the image is complete
	switch s.opt.Leave {
	case LeaveRunning:
		if !s.d.Suspended() {
			return "running; image complete", s.resume(ctx)
		}
	case LeaveDestroyed:
		return "destroyed; image complete", s.h.Destroy(ctx, s.d.ID)
	}
	s.meter.Downtime("written")
	return "suspended; image complete", nil
}

// handOver gives the domain to a target that answers.
func (s *saving) handOver(ctx context.Context) (string, error) {
	if _, err := handover.Receive(s.opt.Ack, handover.Ready); err != nil {
		return "", err
	}
	if !s.opt.Hold() {
		return "", context.Cause(ctx)
	}
	if err := s.commit(); err != nil {
		return "", err
	}
	lost := handover.Send(s.opt.Stream, handover.Go) // of which the target knows, and says so
	// Whoever asks this process to end now gains nothing: the domain can neither run here nor go until the target says what
	// became of it. It does, or the way back ends with it.
	report, err := handover.Receive(s.opt.Ack, handover.Running, handover.Failed)
	if err != nil {
		return "", errors.Join(lost, err)
	}
	if report == handover.Failed {
		// The target says that its copy is destroyed and never ran, which is the one thing that makes the domain ours again.
		s.committed = false
		_ = s.tell(func(st *guard.State) { st.Resume = true }) // without a guardian it is resumed all the same
		return "", errors.New("the target could not let the domain run, and destroyed its copy")
	}
	s.moved = true
	s.meter.Downtime("running")
	if s.opt.Leave == LeaveSuspended {
		return "suspended; it runs on the target", nil
	}
	if err := s.h.Destroy(context.WithoutCancel(ctx), s.d.ID); err != nil {
		return "", fmt.Errorf("destroy domain %d: %w", s.d.ID, err)
	}
	return "destroyed; it runs on the target", nil
}

func (s *saving) resume(ctx context.Context) error {
	if err := emulator.Resume(ctx, s.h, s.d); err != nil {
		return fmt.Errorf("resume domain %d: %w", s.d.ID, err)
	}
	s.asked = false
	s.meter.Downtime("resumed")
	_ = s.tell(func(st *guard.State) { st.Resume = false }) // if it is gone, it has nothing to undo either
	return nil
}

// failed brings the domain back to what it was, if it is still ours, and says what it is now.
func (s *saving) failed(ctx context.Context, err error) error {
	_, lost := s.h.Info(ctx, s.d.ID)
	gone := errors.Is(lost, fs.ErrNotExist)            // destroyed by somebody else
	if s.state.StopLog && s.emulator != nil && !gone { // Xen's own did not begin, or not end
		if e := s.emulator.SetDirtyLog(ctx, false); e != nil {
			err = fmt.Errorf("%w; the emulator's log of dirty pages may be on: %w", err, e)
		}
	}
	switch {
	case s.moved:
		return fmt.Errorf("%w; it runs on the target, and must not here: xc-save --destroy %d ends what is left of it", err, s.d.ID)
	case s.committed:
		return fmt.Errorf("%w; domain %d suspended: once it is sure that no copy runs, xc-save --resume %d lets it run on", err, s.d.ID, s.d.ID)
	case s.d.Suspended():
		return fmt.Errorf("%w; domain %d suspended, as before", err, s.d.ID)
	case !s.asked:
		return fmt.Errorf("%w; domain %d %s", err, s.d.ID, guard.Now(ctx, s.h, s.d))
	}
	if e := s.resume(ctx); e != nil && !gone {
		return fmt.Errorf("%w; domain %d may be left suspended, or its emulator stopped: %w", err, s.d.ID, e)
	}
	return fmt.Errorf("%w; domain %d %s", err, s.d.ID, guard.Now(ctx, s.h, s.d))
}
