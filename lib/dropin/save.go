package dropin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rs/zerolog"

	"xenferry/lib/helper"
	"xenferry/lib/progress"
	"xenferry/lib/save"
	"xenferry/lib/x86"
)

// save writes the domain to out. To resume it after a failure is libxl's matter: all that a guardian has to undo is the
// log, of which logging tells it, and a save that is not live has neither.
func (o *operation) save(ctx context.Context, out io.Writer, logging func(on bool) error) (err error) {
	source, err := x86.OpenSave(ctx, o.host, o.call.Domain)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	if o.ours {
		source.Alone()
	}
	o.conn.Info("Saving domain %d, type %v", o.call.Domain, source.Domain().Type)
	if !o.info.Kind.PV() {
		// On every way out, also where the request to log failed: it may be obeyed all the same, as when a signal was quicker
		// than the answer.
		defer func() {
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
			defer stop()
			err = errors.Join(err, o.conn.SwitchQEMULogDirty(last, o.call.Domain, false))
		}()
		if err := o.conn.SwitchQEMULogDirty(ctx, o.call.Domain, true); err != nil {
			return err
		}
	}
	stats, err := o.tune.stats.Open()
	if err != nil {
		return fmt.Errorf("%s: %w", helper.StatsEnv, err)
	}
	s := &saving{operation: o, live: o.call.Live, meter: progress.New(zerolog.Nop(), nil, stats)}
	opt := save.Options{
		Version: o.call.Version, Live: o.call.Live, Verify: o.call.Debug && o.call.Live,
		Policy: o.tune.policy, Logging: logging,
	}
	if o.call.StreamType == helper.Remus {
		opt.Checkpoints = s
	}
	o.conn.Notice("Start of stream")
	if err = save.Run(ctx, source, out, opt, s, s); err == nil {
		s.meter.Downtime("written")
		if opt.Checkpoints == nil { // which have no END
			o.conn.Notice("Complete")
		}
	}
	s.meter.Close(err == nil)
	return err
}

// saving is the save.Control and save.Observer of a save for libxl.
type saving struct {
	*operation
	meter *progress.Meter // for the statistics alone
	what  string          // the round, as front ends know it
	round save.Round
	live  bool // no checkpoint is written yet
}

// Suspend implements save.Control.
func (s *saving) Suspend(ctx context.Context) error {
	if err := s.conn.Suspend(ctx); err != nil {
		return err
	}
	info, err := s.host.Info(ctx, s.call.Domain)
	if err == nil && !info.Suspended() {
		err = fmt.Errorf("the toolstack says that domain %d is suspended, and it is not", s.call.Domain)
	}
	return err
}

// Resumed implements save.Checkpoints.
func (s *saving) Resumed(ctx context.Context) (bool, error) {
	s.live = false
	on, err := s.conn.Postcopy(ctx)
	if err == nil {
		s.meter.Downtime("resumed")
	}
	return on, err
}

// Next implements save.Checkpoints: libxl writes its own records, and answers when it is time.
func (s *saving) Next(ctx context.Context) (bool, error) {
	r, err := s.conn.Checkpoint(ctx)
	return r > 0, err
}

// Commit implements save.Control: libxl alone decides what becomes of the domain.
func (s *saving) Commit(context.Context) error {
	s.conn.Notice("End of stream")
	return nil
}

// Begin implements save.Observer.
func (s *saving) Begin(r save.Round) {
	s.round, s.what = r, s.title(r)
	s.conn.Progress(s.what, 0, r.Frames)
	s.meter.Begin(r)
}

// title names a round as libxenguest does: until the first checkpoint the last pass counts as one more iteration.
func (s *saving) title(r save.Round) string {
	switch {
	case r.Kind == save.RoundVerify:
		return "Frames verify"
	case s.live && s.call.CountsRounds():
		iteration := r.Iteration
		if r.Kind == save.RoundFinal {
			iteration = s.tune.policy.MaxIterations
		}
		return fmt.Sprintf("Frames iteration %d of %d", iteration, s.tune.policy.MaxIterations)
	case s.live:
		return fmt.Sprintf("Frames iteration %d", r.Iteration)
	case s.call.StreamType == helper.Remus:
		return "Checkpointed save"
	}
	return "Frames"
}

// Sent implements save.Observer.
func (s *saving) Sent(p save.Progress) {
	s.conn.Progress(s.what, p.Frames, s.round.Frames)
	s.meter.Sent(p)
}

// Done implements save.Observer.
func (s *saving) Done() { s.meter.Done() }

// Suspended implements save.Observer.
func (s *saving) Suspended(took time.Duration) {
	s.conn.Notice("Domain now suspended")
	s.log.Info().Msgf("domain %d suspended %.1f ms after it was asked", s.call.Domain, float64(took.Microseconds())/1000)
	s.meter.Suspended(took)
}
