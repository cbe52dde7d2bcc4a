package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"xenferry/lib/guard"
	"xenferry/lib/progress"
	"xenferry/lib/transport"
)

// ErrUndecided says that the link was lost when the domain was given away already, so that this side cannot know whose it
// is. It is suspended here, and intact.
var ErrUndecided = errors.New("it is not known whether the target runs the domain")

// Send migrates s over a link to a receiver, of ours or of xl, and ends with the domain on exactly one side, or suspended
// here with ErrUndecided. Unless Plain, it offers the target to hold the domain; xl does not see that.
//
// The journal, if one is kept, then has Given as its last step, and RecoverSource finishes what is left.
func Send(ctx context.Context, s *Source, l *transport.Link) (err error) {
	if err := s.accept(); err != nil {
		return err
	}
	if err := s.take(); err != nil {
		return err
	}
	id := uuid.Nil // xl's hand-overs have none
	if !s.Plain {
		id = uuid.New()
		s.Head.Tail = offerOf(id)
	}
	err = s.begin(ctx, SourceSide, Sending,
		Record{ID: id, UUID: s.Domain.UUID, Domain: s.Domain.ID, Name: s.Domain.Name, Peer: s.Peer, Claim: s.claim})
	if err != nil {
		return s.stays(ctx, err)
	}
	defer func() {
		if s.given || s.suspended {
			s.end((*Journal).close)
		} else {
			s.end((*Journal).remove)
		}
	}()
	if err := s.change(func(*guard.State) {}); err != nil { // the guardian learns of the journal
		return s.stays(ctx, err)
	}
	// As long as the user's ssh may want to know a password.
	if _, err := hear(ctx, l, 0, banner); err != nil {
		return s.stays(ctx, err)
	}
	stop := context.AfterFunc(ctx, l.Abort) // a write may wait for ever for a target that does not read
	// END decides nothing here: the target waits for GO.
	err = s.Write(ctx, l.Out, func() error { return nil })
	if whole := stop(); err != nil {
		return err
	} else if whole {
		err = s.offer(ctx, l)
	} else {
		err = context.Cause(ctx)
	}
	if err != nil {
		err = s.Undo(ctx, err)
		return s.keep(context.WithoutCancel(ctx), l, err)
	}
	return s.give(context.WithoutCancel(ctx), l)
}

// offer waits until the target is ready, and gives up the right to let the domain run here.
func (s *Source) offer(ctx context.Context, l *transport.Link) error {
	words := []word{ready}
	if !s.Plain {
		words = append(words, held)
	}
	w, err := hear(ctx, l, s.Patience, words...)
	if err != nil {
		return err
	}
	s.held = w == held
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ctx = context.WithoutCancel(ctx)
	err = s.rename(ctx, s.Domain.ID, s.Domain.Name+suffixAway)
	if err == nil {
		err = s.step(Given, nil)
	}
	if err != nil {
		return errors.Join(err, s.rename(ctx, s.Domain.ID, s.Domain.Name))
	}
	s.given = true
	if err := s.Commit(); err != nil {
		s.Log.Warn().Err(err).Msg("going on without a guardian, which has nothing left to do")
	}
	return nil
}

// keep tells a target that may hold the domain that it was not given, after a failure that it returns. Unless the target says that
// its copy is gone, Orphan is what is left to say.
func (s *Source) keep(ctx context.Context, l *transport.Link, err error) error {
	if s.Plain || s.suspended {
		return err
	}
	if s.held {
		e := keeps.send(l.Out)
		if e == nil { // so far it is with a link that may be lost
			_, e = hear(ctx, l, s.wait(toldTime), goOn)
		}
		if e == nil {
			return err
		}
		err = fmt.Errorf("%w; %w", err, e)
	}
	if s.journal != nil {
		s.Orphan = &s.journal.last
	}
	return fmt.Errorf("%w; the target may hold a copy, paused, until it recovers", err)
}

// give gives the domain away by GO and waits to hear what became of it.
func (s *Source) give(ctx context.Context, l *transport.Link) error {
	err := goOn.send(l.Out)
	if err == nil {
		_, err = hear(ctx, l, s.Patience, report)
	}
	var status byte
	if err == nil {
		status, err = hearStatus(ctx, l, s.Patience)
	}
	if err != nil {
		return s.undecided(err)
	}
	if status != statusDone {
		failed := fmt.Errorf("the target could not let the domain run (status %d)", status)
		// Its GO says that its copy is destroyed and never ran, which is the one thing that makes the domain ours again.
		if _, err := hear(ctx, l, s.Patience, goOn); err != nil {
			return s.undecided(errors.Join(failed, err))
		}
		if err := s.rename(ctx, s.Domain.ID, s.Domain.Name); err != nil {
			failed = errors.Join(failed, err)
		}
		err := s.Undo(ctx, failed)
		s.given = s.suspended
		return err
	}
	down := time.Since(s.asked)
	s.Log.Info().Msgf("moved in %.2f s and %d rounds; downtime %.1f ms, from when the guest was asked to suspend until the target's report came",
		time.Since(s.began).Seconds(), s.rounds, float64(down.Microseconds())/1000)
	s.Tuning.tell(progress.Event{Type: "downtime", Seconds: down.Seconds(), Until: "running"})
	if err := s.destroy(ctx, s.Domain.ID); err != nil {
		return fmt.Errorf("the target runs the domain; its old copy, domain %d, could not be destroyed: %w", s.Domain.ID, err)
	}
	s.given, s.suspended = false, false
	if s.held {
		s.end((*Journal).remove)
		if err := forget.send(l.Out); err != nil {
			s.Log.Debug().Err(err).Msg("the target keeps its journal for a while")
		}
	}
	return nil
}

// undecided is the error of a link that was lost too late.
func (s *Source) undecided(err error) error {
	return fmt.Errorf("%w: %w; here it is domain %d, suspended, %s", err, ErrUndecided, s.Domain.ID, s.Domain.Name+suffixAway)
}
