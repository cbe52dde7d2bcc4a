package save

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// Options say how a domain is saved.
type Options struct {
	Version uint32 // of the stream: xcstream.Version2 or Version3
	Live    bool   // copy while the guest runs, and suspend it late
	Verify  bool   // after the final pass send everything once more, for the target to compare; with Live only
	Policy  Policy // when to stop a live migration; nil is Default
	// Spec goes into an XENFERRY_DOMAIN record, so that the other end knows what domain to make. Nil writes none: what
	// comes is then what stock Xen writes.
	Spec *guest.Spec
	// Logging, if not nil, is told before the log of dirty pages begins, and after it has ended; its error ends the save.
	Logging func(on bool) error
	// Checkpoints makes a stream of checkpoints (Remus) that ends when it says so, and has no END. Nil for a plain one.
	Checkpoints Checkpoints
}

// Checkpoints is who lets the guest run on between two checkpoints, and writes his own records to the same stream. All
// of ours is written when he is called.
type Checkpoints interface {
	// Resumed lets the guest run on behind a checkpoint, Next takes what else belongs to it and waits for the time of
	// the next. Both return whether to go on.
	Resumed(ctx context.Context) (bool, error)
	Next(ctx context.Context) (bool, error)
}

// Control is what saving asks of the command that runs it: all that goes against the flow of pages.
type Control interface {
	// Suspend has the guest suspended, and returns when it is.
	Suspend(ctx context.Context) error
	// Commit is called when all but END is written. From its return on the image may be complete for somebody.
	Commit(ctx context.Context) error
}

// ErrAborted is returned where the policy gave up.
var ErrAborted = errors.New("the migration policy gave up")

// Run saves a domain to dst. Whatever its error, the log of dirty pages is off when it returns; whether the guest then
// runs or is suspended is the matter of ctl, which knows if it was asked to suspend and to commit.
//
// When ctx ends Run returns without waiting for a write that hangs: dst and the guest's pages may still be in use by
// then, and the program should end.
func Run(ctx context.Context, g Guest, dst io.Writer, opt Options, ctl Control, obs Observer) (err error) {
	s := &saver{g: g, opt: opt, ctl: ctl, obs: obs, w: newPipeline(ctx, g, dst)}
	if s.opt.Policy == nil {
		s.opt.Policy = Default
	}
	defer s.w.close()
	if opt.Live { // before the first octet: a guest whose writes cannot be logged is refused
		if err := s.startLog(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.stopLog(context.WithoutCancel(ctx))) }()
	}
	if err := s.head(ctx); err != nil {
		return err
	}
	if opt.Live {
		if err := s.live(ctx); err != nil {
			return err
		}
	}
	return s.stopped(ctx)
}

type saver struct {
	g       Guest
	opt     Options
	ctl     Control
	obs     Observer
	w       *pipeline
	dirty   guest.Bitmap
	round   int
	ended   uint // Stats.Iteration
	logging bool
	// deferred are pages that could not be sent while the guest ran.
	deferred guest.Bitmap
}

// head writes what comes before the first page.
func (s *saver) head(ctx context.Context) error {
	if err := s.w.headers(ctx, xcstream.ImageHeader{Version: s.opt.Version}, s.g.Domain()); err != nil {
		return err
	}
	static, err := s.g.Static(ctx)
	if err != nil {
		return err
	}
	if s.opt.Version >= xcstream.Version3 {
		static = append(static, xcstream.Record{Type: xcstream.TypeStaticDataEnd})
	} else {
		static = slices.DeleteFunc(static, func(r xcstream.Record) bool { // unknown to Xen 4.13 and older
			return r.Type == xcstream.TypeX86CPUIDPolicy || r.Type == xcstream.TypeX86MSRPolicy
		})
	}
	if s.opt.Spec != nil {
		static = append(static, xcstream.Record{Type: xcstream.TypeDomain, Body: xcstream.Domain{Spec: *s.opt.Spec}})
	}
	begin, err := s.g.Begin(ctx)
	if err != nil {
		return err
	}
	s.grow()
	return s.w.records(ctx, append(static, begin...))
}

// grow makes the bitmaps as long as the guest is.
func (s *saver) grow() {
	for _, b := range []*guest.Bitmap{&s.dirty, &s.deferred} {
		grown := guest.NewBitmap(s.g.Frames())
		copy(grown, *b)
		*b = grown
	}
}

// live is the pre-copy loop, in the steps of the reference: the policy is asked before a round, which the log's last
// reading demands to be sent whatever it says, and after it, when the log is not read yet.
func (s *saver) live(ctx context.Context) error {
	waiting := s.g.Frames()
	s.dirty.SetFirst(waiting)
	stats := Stats{Dirty: int64(waiting)}
	for {
		decision := s.opt.Policy.Decide(stats)
		if decision == Abort {
			return ErrAborted
		}
		if waiting > 0 {
			if err := s.send(ctx, RoundLive, waiting); err != nil {
				return err
			}
			if err := s.g.CheckRunning(ctx); err != nil {
				return err
			}
		}
		if decision == StopAndCopy {
			return nil
		}
		stats.Iteration++
		s.ended = stats.Iteration
		stats.TotalWritten += waiting
		stats.Dirty = DirtyUnknown
		switch s.opt.Policy.Decide(stats) {
		case Abort:
			return ErrAborted
		case StopAndCopy:
			return nil
		}
		var err error
		if waiting, err = s.g.Dirty(ctx, s.dirty, false); err != nil {
			return err
		}
		stats.Dirty = int64(waiting)
	}
}

// stopped is everything from the suspend request to END, or checkpoint by checkpoint until somebody has enough.
func (s *saver) stopped(ctx context.Context) error {
	for s.opt.Checkpoints != nil {
		if err := s.rest(ctx); err != nil {
			return err
		}
		if goOn, err := s.checkpoint(ctx); err != nil || !goOn {
			return err
		}
	}
	if err := s.rest(ctx); err != nil {
		return err
	}
	if err := s.stopLog(ctx); err != nil {
		return err
	}
	if err := s.ctl.Commit(ctx); err != nil {
		return err
	}
	return s.w.records(ctx, []xcstream.Record{{Type: xcstream.TypeEnd}})
}

// checkpoint ends what one checkpoint is, and waits for the next.
func (s *saver) checkpoint(ctx context.Context) (bool, error) {
	if err := s.w.records(ctx, []xcstream.Record{{Type: xcstream.TypeCheckpoint}}); err != nil {
		return false, err
	}
	if goOn, err := s.opt.Checkpoints.Resumed(ctx); err != nil || !goOn {
		return false, err
	}
	return s.opt.Checkpoints.Next(ctx)
}

// rest has the guest suspended and writes what the target does not have yet, pages and state.
func (s *saver) rest(ctx context.Context) error {
	asked := time.Now()
	if err := s.ctl.Suspend(ctx); err != nil {
		return err
	}
	s.obs.Suspended(time.Since(asked))
	s.w.still = s.opt.Checkpoints == nil
	records, also, err := s.g.Suspended(ctx)
	if err != nil {
		return err
	}
	if err := s.w.records(ctx, records); err != nil {
		return err
	}
	if err := s.final(ctx, also); err != nil {
		return err
	}
	if s.opt.Verify && s.opt.Live {
		if err := s.verify(ctx); err != nil {
			return err
		}
	}
	end, err := s.g.End(ctx)
	if err != nil {
		return err
	}
	return s.w.records(ctx, end)
}

// final sends what the target does not have yet, now that nothing changes any more.
func (s *saver) final(ctx context.Context, also guest.Bitmap) error {
	s.grow()
	if s.logging {
		if _, err := s.g.Dirty(ctx, s.dirty, true); err != nil {
			return err
		}
		s.dirty.Or(s.deferred)
		s.dirty.Or(also)
	} else {
		s.dirty.SetFirst(s.g.Frames())
	}
	s.deferred.Reset()
	return s.send(ctx, RoundFinal, s.dirty.Count())
}

// verify sends all pages again behind a VERIFY record.
func (s *saver) verify(ctx context.Context) error {
	if err := s.w.records(ctx, []xcstream.Record{{Type: xcstream.TypeVerify}}); err != nil {
		return err
	}
	s.dirty.SetFirst(s.g.Frames())
	return s.send(ctx, RoundVerify, s.g.Frames())
}

// send writes the pages of s.dirty, of which there are count, as one round.
func (s *saver) send(ctx context.Context, kind RoundKind, count uint64) error {
	s.round++
	s.obs.Begin(Round{Number: s.round, Kind: kind, Frames: count, Iteration: s.ended})
	deferred, err := s.w.pages(ctx, s.dirty, s.obs.Sent)
	if err != nil {
		return fmt.Errorf("round %d: %w", s.round, err)
	}
	for _, p := range deferred {
		s.deferred.Set(uint64(p))
	}
	s.obs.Done()
	return nil
}

func (s *saver) startLog(ctx context.Context) error {
	if err := s.tell(true); err != nil {
		return err
	}
	if err := s.g.StartLog(ctx); err != nil {
		return err
	}
	s.logging = true
	return nil
}

func (s *saver) stopLog(ctx context.Context) error {
	if !s.logging {
		return nil
	}
	s.logging = false
	if err := s.g.StopLog(ctx); err != nil {
		return err
	}
	return s.tell(false)
}

func (s *saver) tell(on bool) error {
	if s.opt.Logging == nil {
		return nil
	}
	return s.opt.Logging(on)
}
