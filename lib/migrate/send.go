package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"

	"xenferry/lib/transport"
)

// ErrUndecided says that the link was lost when the domain was given away already, so that this side cannot know whose it
// is. It is suspended here, and intact.
var ErrUndecided = errors.New("it is not known whether the target runs the domain")

// Send migrates s over a link to a receiver, of ours or of xl, and ends with the domain on exactly one side, or suspended
// here with ErrUndecided.
//
// The journal, if one is kept, then has Given as its last step, and Recover finishes what is left.
func Send(ctx context.Context, s *Source, l *transport.Link) (err error) {
	if err := s.begin(sourceSide, Sending, Record{UUID: s.Domain.UUID, Domain: s.Domain.ID, Name: s.Domain.Name, Peer: s.Peer}); err != nil {
		return fmt.Errorf("%w; domain %d runs on", err, s.Domain.ID)
	}
	defer func() { s.end(!s.given) }()
	back, err := transport.NewReader(ctx, int(l.In.Fd()))
	if err != nil {
		return err
	}
	if err := banner.expect(back); err != nil {
		return fmt.Errorf("%w; domain %d runs on", err, s.Domain.ID)
	}
	stop := context.AfterFunc(ctx, l.Abort) // a write may wait for ever for a target that does not read
	defer stop()
	// END decides nothing here: the target waits for GO.
	if err := s.Write(ctx, l.Out, func() error { return nil }); err != nil {
		return err
	}
	if err := s.offer(ctx, back, stop); err != nil {
		return s.Undo(ctx, err)
	}
	return s.give(context.WithoutCancel(ctx), l)
}

// offer waits until the target is ready, and gives up the right to let the domain run here. stop ends what ctx can do to the
// link; it is false if that came too late.
func (s *Source) offer(ctx context.Context, back io.Reader, stop func() bool) error {
	if err := ready.expect(back); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := s.rename(ctx, s.Domain.ID, s.Domain.Name+suffixAway); err != nil {
		return err
	}
	if !stop() {
		return errors.Join(context.Cause(ctx), s.rename(context.WithoutCancel(ctx), s.Domain.ID, s.Domain.Name))
	}
	if err := errors.Join(s.step(Given, nil), s.Commit()); err != nil {
		return errors.Join(err, s.rename(ctx, s.Domain.ID, s.Domain.Name))
	}
	s.given = true
	return nil
}

// give gives the domain away by GO and waits to hear what became of it.
func (s *Source) give(ctx context.Context, l *transport.Link) error {
	back, err := transport.NewReader(ctx, int(l.In.Fd()))
	if err == nil {
		err = goOn.send(l.Out)
	}
	var status [1]byte
	if err == nil {
		err = report.expect(back)
	}
	if err == nil {
		_, err = io.ReadFull(back, status[:])
	}
	if err != nil {
		return s.undecided(err)
	}
	if status[0] != statusDone {
		failed := fmt.Errorf("the target could not let the domain run (status %d)", status[0])
		// Its GO says that its copy is destroyed and never ran, which is the one thing that makes the domain ours again.
		if err := goOn.expect(back); err != nil {
			return s.undecided(errors.Join(failed, err))
		}
		s.given = false
		return s.Undo(ctx, errors.Join(failed, s.rename(ctx, s.Domain.ID, s.Domain.Name)))
	}
	if err := s.Host.Destroy(ctx, s.Domain.ID); err != nil {
		return fmt.Errorf("the target runs the domain; its old copy, domain %d, could not be destroyed: %w", s.Domain.ID, err)
	}
	s.given = false
	return nil
}

// undecided is the error of a link that was lost too late.
func (s *Source) undecided(err error) error {
	return fmt.Errorf("%w: %w; here it is domain %d, suspended, %s", err, ErrUndecided, s.Domain.ID, s.Domain.Name+suffixAway)
}
