package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"xenferry/lib/transport"
)

// ErrHeld says that the link was lost while the domain changed hands. It is complete and paused here until the source is
// known to have given or kept it.
var ErrHeld = errors.New("it is not known whether the source has given the domain")

// errKept is what a source says that did not give the domain after all.
var errKept = errors.New("the source keeps the domain")

// wordTime is how long a target that holds the domain goes on waiting for its source's word when it is told to end: a source that was
// told, too, says that it keeps the domain.
const wordTime = 10 * time.Second

// forgetTime and toldTime are how long a source may take to destroy its copy, or a target that it was not given. If the source takes
// longer the target's journal stays for a while; if the target does, it may be asked over another link.
const (
	forgetTime = 10 * time.Second
	toldTime   = 20 * time.Second
)

// wait is d, or a shorter patience.
func (s *Side) wait(d time.Duration) time.Duration {
	if s.Patience > 0 {
		return min(d, s.Patience)
	}
	return d
}

// Receive receives a domain from a sender, of ours or of xl, over a link on which nothing else is written, and lets it
// run unless paused. It holds the domain if that was offered and a journal is kept; else, as for xl, the domain goes if the
// source does not say that it is ours.
func Receive(ctx context.Context, t *Target, l *transport.Link, paused bool) error {
	if err := banner.send(l.Out); err != nil {
		return err
	}
	defer func() { // what it says a source may ask for later
		if t.made || t.promised {
			t.end((*Journal).close)
		} else {
			t.end((*Journal).forget)
		}
	}()
	t.Name = func(name string) string { return name + suffixIncoming }
	if err := t.Read(ctx, l.In); err != nil {
		return err
	}
	if !paused {
		if err := t.Alone(ctx); err != nil {
			return err
		}
	}
	if err := t.agree(ctx, l, paused); err != nil {
		return t.part(ctx, l, err)
	}
	if err := t.Own(ctx, paused); err != nil {
		return t.giveBack(ctx, l, err)
	}
	if err := report.with(statusDone).send(l.Out); err != nil {
		t.Log.Warn().Err(err).Msg("the source was not told, and keeps its copy suspended")
		return nil
	}
	if t.held {
		if _, err := hear(context.WithoutCancel(ctx), l, t.wait(forgetTime), forget); err != nil {
			t.Log.Debug().Err(err).Msg("the source may ask later")
		} else {
			t.end((*Journal).forget)
		}
	}
	return nil
}

// agree tells the source that the domain is complete, and waits to hear that it is ours.
func (t *Target) agree(ctx context.Context, l *transport.Link, paused bool) error {
	says, answers := ready, []word{goOn}
	if t.id != uuid.Nil && t.journal != nil {
		if err := t.hold(paused); err != nil {
			return err
		}
		says, answers = held, append(answers, keeps)
		var done context.CancelFunc
		ctx, done = later(ctx, wordTime)
		defer done()
	}
	t.promised = true
	if err := says.send(l.Out); err != nil {
		return err
	}
	w, err := hear(ctx, l, t.Patience, answers...)
	if err == nil && w == keeps {
		t.held = false
		err = errKept
	}
	return err
}

// later ends with ctx, but so much later.
func later(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(by):
			cancel(context.Cause(ctx))
		case <-late.Done():
		}
	})
	return late, func() {
		stop()
		cancel(nil)
	}
}

// part ends a hand-over that was not agreed on: what is held stays, as the source may have given it.
func (t *Target) part(ctx context.Context, l *transport.Link, err error) error {
	switch {
	case t.held:
		return fmt.Errorf("%w: %w; domain %d is complete and paused, %s, for xl-stream recover", err, ErrHeld, t.Domain.ID,
			t.name+suffixIncoming)
	case errors.Is(err, errKept):
		err = t.Undo(ctx, err)
		if t.made {
			return err
		}
		t.promised = false // nobody will ask
		if e := goOn.send(l.Out); e != nil {
			t.Log.Debug().Err(e).Msg("the source may ask over another link")
		}
		return err
	}
	return t.giveBack(ctx, l, err)
}

// giveBack tells the source that the domain did not get to run here, and that it is the source's once nothing is left.
func (t *Target) giveBack(ctx context.Context, l *transport.Link, err error) error {
	told := report.with(statusFailed).send(l.Out)
	err = t.Undo(ctx, err)
	if told != nil || t.made {
		return err
	}
	if e := goOn.send(l.Out); e != nil {
		return fmt.Errorf("%w; the source was not told: %w", err, e)
	}
	return err
}
