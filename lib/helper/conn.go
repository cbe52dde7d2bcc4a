package helper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"xenferry/lib/guest"
)

// ErrGone is the error of a message or an answer once libxl is gone.
var ErrGone = errors.New("the toolstack is gone")

// patience is how long an answer may take once the operation is to end: libxl gives a guest twice 60 s to suspend.
const patience = 150 * time.Second

// Conn is the helper's end. Log and Progress may be called from any goroutine, also while an answer is awaited.
type Conn struct {
	call *Call
	out  io.Writer
	mu   sync.Mutex // one frame at a time: libxl reads a frame under its lock

	asking  sync.Mutex // one question at a time
	lost    bool       // an answer that nobody waits for any more may still come
	replies chan int32
	gone    chan struct{}
}

// NewConn returns the end that writes frames to out, each in one write, and reads replies from in until that ends.
func NewConn(call *Call, in io.Reader, out io.Writer) *Conn {
	c := &Conn{call: call, out: out, replies: make(chan int32, 1), gone: make(chan struct{})}
	go c.listen(in)
	return c
}

// Gone is closed when libxl is gone.
func (c *Conn) Gone() <-chan struct{} { return c.gone }

func (c *Conn) listen(in io.Reader) {
	defer close(c.gone)
	var b [4]byte
	for {
		if _, err := io.ReadFull(in, b[:]); err != nil {
			return
		}
		select {
		case c.replies <- int32(le.Uint32(b[:])):
		default: // an answer to nothing
		}
	}
}

// send writes a frame.
func (c *Conn) send(f frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.out.Write(f.done()); err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return nil
}

func (c *Conn) frame(k Kind) frame { return newFrame(c.call.Numbering.number(k)) }

// ask sends a frame and waits for its answer. When ctx ends the answer is still to come, and nothing else may be asked
// before: so ask goes on waiting for as long as patience is. After that the connection is of no more use.
func (c *Conn) ask(ctx context.Context, k Kind, f frame) (int32, error) {
	if !c.call.Has(k) {
		return 0, fmt.Errorf("the toolstack does not answer to %v", k)
	}
	c.asking.Lock()
	defer c.asking.Unlock()
	switch {
	case c.lost:
		return 0, errors.New("the toolstack owes an answer")
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	}
	if err := c.send(f); err != nil {
		return 0, err
	}
	done, late := ctx.Done(), (<-chan time.Time)(nil)
	for {
		select {
		case r := <-c.replies:
			return r, context.Cause(ctx)
		case <-c.gone:
			return 0, ErrGone
		case <-done:
			done, late = nil, time.After(patience)
		case <-late:
			c.lost = true
			return 0, fmt.Errorf("no answer to %v: %w", k, context.Cause(ctx))
		}
	}
}

// The contexts that libxl shows before a line: who says it.
const (
	ContextOwn   = "xenferry"
	ContextLibxc = "xc" // what the stock helper's library says, in the words that people and front ends know
)

// Log has libxl log a line of ours.
func (c *Conn) Log(level Level, text string) { c.log(ContextOwn, level, text) }

// Info has libxl log a line of information in libxc's name.
func (c *Conn) Info(format string, args ...any) {
	c.log(ContextLibxc, LevelInfo, fmt.Sprintf(format, args...))
}

func (c *Conn) log(context string, level Level, text string) {
	_ = c.send(c.frame(Log).u32(uint32(min(max(level, LevelDebug), LevelCritical))).u32(noErrno).text(context).text(text))
}

// Progress has libxl show how far something is: done of total pages.
func (c *Conn) Progress(what string, done, total uint64) {
	_ = c.send(c.frame(Progress).text(ContextLibxc).text(what).u64(done).u64(total))
}

// Notice is a Progress without a measure: something has happened.
func (c *Conn) Notice(what string) { c.Progress(what, 0, 0) }

// Suspend has libxl suspend the guest.
func (c *Conn) Suspend(ctx context.Context) error {
	r, err := c.ask(ctx, Suspend, c.frame(Suspend))
	if err == nil && r == 0 {
		err = errors.New("the toolstack could not suspend the guest")
	}
	return err
}

// Postcopy tells libxl of a checkpoint that is written; the guest runs again on return, and goOn is whether to go on.
func (c *Conn) Postcopy(ctx context.Context) (goOn bool, err error) {
	r, err := c.ask(ctx, Postcopy, c.frame(Postcopy))
	return r > 0, err
}

// Checkpoint is libxl's part of a checkpoint. Saving, its answer is 1 to go on and 0 to stop; restoring, 1 to go on, 2 to
// fail over and 0 for an error.
func (c *Conn) Checkpoint(ctx context.Context) (int32, error) {
	return c.ask(ctx, Checkpoint, c.frame(Checkpoint))
}

// SwitchQEMULogDirty has libxl turn the emulator's log of dirty pages on or off. A caller without this is left alone.
func (c *Conn) SwitchQEMULogDirty(ctx context.Context, id guest.DomID, on bool) error {
	if !c.call.Has(SwitchQEMULogDirty) {
		return nil
	}
	enable := uint32(0)
	if on {
		enable = 1
	}
	r, err := c.ask(ctx, SwitchQEMULogDirty, c.frame(SwitchQEMULogDirty).u32(uint32(id)).u32(enable))
	if err == nil && r != 0 {
		err = fmt.Errorf("the toolstack could not switch the emulator's log of dirty pages: %d", r)
	}
	return err
}

// Bits of what StaticDataDone says to be missing.
const (
	MissingCPUID = 1 << 0
	MissingMSR   = 1 << 1
)

// StaticDataDone tells libxl that the static records have come and which policies were not among them, so that it makes
// those up. A caller of 4.13 and older does not ask for it.
func (c *Conn) StaticDataDone(ctx context.Context, missing uint32) error {
	if !c.call.Has(StaticDataDone) {
		return nil
	}
	r, err := c.ask(ctx, StaticDataDone, c.frame(StaticDataDone).u32(missing))
	if err == nil && r != 0 {
		err = fmt.Errorf("the toolstack could not set up the domain's processor: %d", r)
	}
	return err
}

// RestoreResults tells libxl where xenstore's and the console's rings are.
func (c *Conn) RestoreResults(store, console guest.GFN) error {
	return c.send(c.frame(RestoreResults).u64(uint64(store)).u64(uint64(console)))
}

// Complete is the last message: 0, or -1 with what the errno of failure was.
func (c *Conn) Complete(ctx context.Context, result, errno int32) error {
	_, err := c.ask(ctx, Complete, c.frame(Complete).u32(uint32(result)).u32(uint32(errno)))
	return err
}
