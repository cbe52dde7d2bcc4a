package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/google/uuid"

	"xenferry/lib/emulator"
	"xenferry/lib/guard"
	"xenferry/lib/guest"
	"xenferry/lib/helper"
	"xenferry/lib/transport"
	"xenferry/lib/xlstream"
	"xenferry/lib/xlstream/filter"
)

// Source is a domain that is saved or sent.
type Source struct {
	Side
	Domain         guest.Info
	Head           xlstream.XLHeader
	Peer           string // the target, as the journal has it
	Live           bool
	Verify         bool          // live: send all pages again, for the target to compare
	KeepsRunning   bool          // the domain runs on here when its image is complete
	SuspendTimeout time.Duration // how long the guest may take to suspend
	Tuning         Tuning
	Plain          bool // when sent: nothing that xl migrate would not say

	// Orphan, once a Send has failed and the domain runs here, is the record of a hand-over whose target may hold a copy; else nil.
	Orphan *Record

	claim  uuid.UUID // of the domain, for this save
	began  time.Time // the stream
	asked  time.Time // the guest, to suspend
	rounds int       // that xc-save had

	emulator  emulator.Emulator
	state     *os.File // the emulator's, once it is saved
	suspended bool     // or about to be
	held      bool     // by a target that waits to be told whose it is
	given     bool     // to a target that has not answered for it
	told      guard.State
}

// change changes what the guardian knows.
func (s *Source) change(change func(*guard.State)) error {
	s.told.Domain, s.told.UUID = s.Domain.ID, s.Domain.UUID
	change(&s.told)
	return s.tell(s.told)
}

// accept refuses what cannot be saved.
func (s *Source) accept() error {
	d := &s.Domain
	switch {
	case d.Dying:
		return fmt.Errorf("domain %d is dying", d.ID)
	case d.Suspended():
		return fmt.Errorf("domain %d is suspended: xl-stream recover, or else xc-save --resume, lets it run on", d.ID)
	case d.Shutdown:
		return fmt.Errorf("domain %d has shut down (%v): only one that runs can be saved", d.ID, d.Reason)
	case d.Paused:
		return fmt.Errorf("domain %d is paused and cannot suspend itself: unpause it first", d.ID)
	case d.LogDirty:
		return fmt.Errorf("domain %d has a log of dirty pages already: is it being saved?", d.ID)
	}
	return nil
}

// take claims the domain, so that nobody undoes later what others did before.
func (s *Source) take() (err error) {
	if s.DomainLock != nil && s.claim == uuid.Nil {
		s.claim, err = s.DomainLock.Claim()
	}
	return err
}

// Write writes the domain to out, from xl's header to libxl's END, and leaves it suspended, its devices stopped. commit is
// asked at the instant before END. After a failure, also of commit, the domain runs as before.
func (s *Source) Write(ctx context.Context, out *os.File, commit func() error) (err error) {
	if err := s.accept(); err != nil {
		return err
	}
	if err := s.take(); err != nil {
		return err
	}
	s.emulator = emulator.Open(s.Host, s.Domain)
	defer func() {
		if s.state != nil {
			_ = s.state.Close()
		}
		if err != nil {
			err = s.Undo(ctx, err)
		}
	}()
	raw, err := transport.NewWriterUntil(ctx, int(out.Fd()))
	if err != nil {
		return err
	}
	w := xlstream.NewWriter(raw)
	s.began = time.Now()
	if err := filter.WriteHead(w, &s.Head); err != nil {
		return err
	}
	flags := 0
	if s.Live {
		flags |= 1
		if s.Verify {
			flags |= 2
		}
	}
	at("run xc-save")
	child := &worker{program: "xc-save", host: s.Spec, log: s.Log, tuning: s.Tuning, answer: s.answer}
	if err := child.run(ctx, out, "--save-domain %d -1 %d %d 136 0", stream, s.Domain.ID, flags); err != nil {
		return err
	}
	s.rounds = child.rounds
	at("xc-save is done")
	if !s.suspended {
		return errors.New("xc-save is done, and never had the domain suspended")
	}
	in := filter.Inputs{
		Emulator: func() (io.ReadCloser, uint64, error) { return opened(s.state) },
		Commit: func() error {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			return commit()
		},
	}
	if s.emulator != nil {
		in.Xenstore = func() ([]xlstream.KeyValue, error) { return s.emulator.Keys(ctx) }
	}
	return filter.WriteTail(w, !s.Domain.Kind.PV(), in)
}

// Undo lets the domain run as before after a failure, which it adds to. What was not suspended runs anyway.
func (s *Source) Undo(ctx context.Context, err error) error {
	ctx = context.WithoutCancel(ctx)
	if _, gone := s.Host.Info(ctx, s.Domain.ID); s.told.StopLog && !errors.Is(gone, fs.ErrNotExist) { // xc-save was killed
		if e := s.setLog(ctx, false); e != nil {
			s.Log.Warn().Err(e).Msg("the emulator's log of dirty pages may be on")
		}
	}
	if !s.suspended {
		return s.stays(ctx, err)
	}
	half := Resume(ctx, s.Host, s.Domain)
	if half != nil {
		switch d, e := s.Host.Info(ctx, s.Domain.ID); {
		case errors.Is(e, fs.ErrNotExist):
			half = nil
		case e != nil:
			return fmt.Errorf("%w; domain %d could not be resumed and may be suspended: %w", err, s.Domain.ID, errors.Join(half, e))
		case d.Suspended():
			return fmt.Errorf("%w; domain %d could not be resumed and is suspended: %w", err, s.Domain.ID, half)
		}
	}
	s.suspended = false
	if e := s.Commit(); e != nil {
		s.Log.Warn().Err(e).Msg("going on without a guardian")
	}
	if err = s.stays(ctx, err); half != nil {
		return fmt.Errorf("%w, but %w", err, half)
	}
	return err
}

// stays adds to an error what became of the domain, which is this side's: it may have shut down by itself.
func (s *Source) stays(ctx context.Context, err error) error {
	return fmt.Errorf("%w; domain %d %s", err, s.Domain.ID, guard.Now(context.WithoutCancel(ctx), s.Host, s.Domain))
}

// Commit gives up the right to let the domain run here by itself: the guardian has nothing left to do.
func (s *Source) Commit() error { return s.change(func(st *guard.State) { *st = guard.State{} }) }

// setLog turns the emulator's log of dirty pages on or off.
func (s *Source) setLog(ctx context.Context, on bool) error {
	if on {
		if err := s.change(func(st *guard.State) { st.StopLog = true }); err != nil {
			return err
		}
	}
	if err := s.emulator.SetDirtyLog(ctx, on); err != nil || on {
		return err
	}
	return s.change(func(st *guard.State) { st.StopLog = false })
}

// answer does what xc-save asks for.
func (s *Source) answer(ctx context.Context, m *helper.Message) (int32, error) {
	switch m.Kind {
	case helper.SwitchQEMULogDirty:
		if s.emulator == nil {
			return 0, nil
		}
		if err := s.setLog(context.WithoutCancel(ctx), m.Numbers[1] != 0); err != nil {
			return -1, err
		}
		return 0, nil
	case helper.Suspend:
		if err := s.suspend(ctx); err != nil {
			return 0, err
		}
		return 1, nil
	}
	return -1, fmt.Errorf("xc-save asks for %v, which was not offered", m.Kind)
}

// suspend suspends the guest, then stops its devices and saves their state.
func (s *Source) suspend(ctx context.Context) error {
	if err := s.change(func(st *guard.State) { st.Resume = true }); err != nil {
		return err
	}
	s.suspended = true
	ctx, cancel := context.WithTimeoutCause(ctx, s.SuspendTimeout, fmt.Errorf("the guest did not suspend within %v", s.SuspendTimeout))
	defer cancel()
	at("suspend")
	s.asked = time.Now()
	if err := s.Host.Suspend(ctx, s.Domain.ID); err != nil {
		return err
	}
	at("suspended")
	info, err := s.Host.Info(ctx, s.Domain.ID)
	switch {
	case err != nil:
		return err
	case !info.Suspended():
		return fmt.Errorf("domain %d did not suspend: it has shut down (%v)", s.Domain.ID, info.Reason)
	case s.emulator == nil:
		return nil
	}
	if err := s.emulator.Stop(ctx); err != nil {
		return err
	}
	if s.state, err = stateFile(); err != nil {
		return err
	}
	return s.emulator.Save(ctx, s.state, !s.KeepsRunning)
}
