package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// Verdict is what follows a checkpoint.
type Verdict int

// The verdicts.
const (
	GoOn     Verdict = iota // the checkpoint is complete: take it, and wait for the next
	FailOver                // the source is gone: complete the domain from the last checkpoint
)

// maxSpool is how large a checkpoint may be that is kept back until it is complete, in octets.
const maxSpool = 16 << 30

// checkpointed is a stream behind its first CHECKPOINT: what comes is kept back until the next one, since half a
// checkpoint must never reach the domain.
type checkpointed struct {
	spool bytes.Buffer // whole records
	start uint64       // offset of the first of them
}

// firstCheckpoint ends what was taken as it came.
func (l *loader) firstCheckpoint(ctx context.Context) error {
	if l.opt.Checkpoint == nil {
		return errors.New("a checkpointed stream (Remus, COLO) cannot be restored as a plain one")
	}
	if err := l.in.Skip(); err != nil {
		return err
	}
	if err := l.order.Complete(); err != nil {
		return err
	}
	verdict, err := l.opt.Checkpoint(ctx)
	if err == nil && verdict == FailOver {
		err = errors.New("asked to fail over before a checkpoint was complete")
	}
	l.checkpoint = &checkpointed{start: l.in.Offset()}
	return err
}

// next keeps one record back, or at a CHECKPOINT takes all that were. When the source is gone, which a stream that ends
// shows as well as a verdict, the domain is what it was at the last CHECKPOINT.
func (c *checkpointed) next(ctx context.Context, l *loader) error {
	t, err := c.keep(l)
	if err == nil && t == xcstream.TypeCheckpoint {
		var verdict Verdict
		if verdict, err = l.opt.Checkpoint(ctx); err == nil && verdict == GoOn {
			return c.replay(ctx, l)
		}
		l.ended = err == nil
		return err
	}
	if ctx.Err() != nil {
		return err
	}
	l.ended = err != nil || t == xcstream.TypeEnd
	return nil
}

// keep adds a record to the spool.
func (c *checkpointed) keep(l *loader) (xcstream.Type, error) {
	t, length, err := l.in.Next()
	if err != nil {
		return t, err
	}
	if _, err := l.order.Next(t); err != nil {
		return t, err
	}
	if c.spool.Len()+int(length) > maxSpool {
		return t, fmt.Errorf("%w: a checkpoint of more than %d octets", record.ErrLimit, int64(maxSpool))
	}
	h := record.Header{Type: uint32(t), Length: length}
	c.spool.Write(h.Append(nil))
	if err := l.in.Copy(&c.spool); err != nil {
		return t, err
	}
	c.spool.Write(make([]byte, h.Padding()))
	return t, l.in.End()
}

// replay takes the records of a complete checkpoint.
func (c *checkpointed) replay(ctx context.Context, l *loader) error {
	in := l.in
	defer func() { l.in = in }()
	l.in = xcstream.NewReader(&c.spool, record.Lenient, c.start)
	for {
		t, _, err := l.in.Next()
		if err != nil {
			return err
		}
		if t == xcstream.TypeCheckpoint {
			break
		}
		if err := l.record(ctx, t); err != nil {
			return l.in.Wrap(err)
		}
	}
	c.spool.Reset()
	c.start = in.Offset()
	l.obs.Taken()
	return nil
}
