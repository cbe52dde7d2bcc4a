package legacy

import "fmt"

// spools keep a Remus image's checkpoints until they are whole. The first one's memory goes to the output at once, as without
// it there is nothing.
type spools struct {
	pages, state Spool // of the current checkpoint
	good         Spool // state of the last whole one
	goodSize     uint64
	committed    int // whole checkpoints whose memory is in the output
}

func (c *converter) openSpools() (err error) {
	s := &spools{}
	for _, to := range []*Spool{&s.pages, &s.state, &s.good} {
		if *to, err = c.Spool(); err != nil {
			return fmt.Errorf("make a place for a checkpoint until it is whole: %w", err)
		}
	}
	c.spools, c.state = s, &sink{w: s.state.Writer()}
	return nil
}

// commit takes the current checkpoint, which is whole, and makes way for the next.
func (c *converter) commit() error {
	s := c.spools
	if c.pages != &c.out {
		if err := c.unspool(s.pages, c.pages.off); err != nil {
			return err
		}
	}
	if err := s.good.Reset(); err != nil {
		return err
	}
	s.state, s.good, s.goodSize = s.good, s.state, c.state.off
	c.pages, c.state = &sink{w: s.pages.Writer()}, &sink{w: s.state.Writer()}
	s.committed = c.r.complete
	c.whole = false
	return nil
}

// lastCheckpoint writes the state of the last whole checkpoint, behind the memory of all of them.
func (c *converter) lastCheckpoint() error {
	if c.spools.committed < c.r.complete {
		if err := c.commit(); err != nil {
			return err
		}
	}
	return c.unspool(c.spools.good, c.spools.goodSize)
}

// unspool moves the size octets that are in a spool to the output.
func (c *converter) unspool(from Spool, size uint64) error {
	if err := from.MoveTo(c.out.w); err != nil {
		return fmt.Errorf("write the output at offset %#x: %w", c.out.off, err)
	}
	c.out.off += size
	return nil
}
