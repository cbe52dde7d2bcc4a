package migrate

import (
	"context"
	"errors"
	"fmt"

	"xenferry/lib/transport"
)

// Receive receives a domain from a sender, of ours or of xl, over a link on which nothing else is written, and lets it
// run unless paused.
func Receive(ctx context.Context, t *Target, l *transport.Link, paused bool) error {
	if err := banner.send(l.Out); err != nil {
		return err
	}
	defer func() { t.end(false) }() // what it says a source may ask for later
	t.Name = func(name string) string { return name + suffixIncoming }
	if err := t.Read(ctx, l.In); err != nil {
		return err
	}
	forth, err := transport.NewReader(ctx, int(l.In.Fd()))
	if err == nil {
		err = ready.send(l.Out)
	}
	if err == nil {
		err = goOn.expect(forth)
	}
	if err == nil {
		err = t.Own(ctx, paused)
	}
	if err != nil {
		return t.giveBack(ctx, l, err)
	}
	if err := errors.Join(report.send(l.Out), word([]byte{statusDone}).send(l.Out)); err != nil {
		t.Log.Warn().Err(err).Msg("the source was not told, and keeps its copy suspended")
	}
	return nil
}

// giveBack tells the source that the domain did not get to run here, and that it is the source's once nothing is left.
func (t *Target) giveBack(ctx context.Context, l *transport.Link, err error) error {
	told := errors.Join(report.send(l.Out), word([]byte{statusFailed}).send(l.Out))
	err = t.Undo(ctx, err)
	if told != nil || t.made {
		return err
	}
	if e := goOn.send(l.Out); e != nil {
		return fmt.Errorf("%w; the source was not told: %w", err, e)
	}
	return err
}
