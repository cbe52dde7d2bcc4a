package progress

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"xenferry/lib/guest"
	"xenferry/lib/save"
)

// bars shows a bar for each round, and above all of them the share that is done.
type bars struct {
	pool    *mpb.Progress
	overall *mpb.Bar
	round   *mpb.Bar
	rate    *rate // of the round
	share   share
}

// whole is how many steps the bar of the whole has.
const whole = 1000

func newBars(w io.Writer) *bars {
	pool := mpb.New(mpb.WithOutput(w), mpb.WithWidth(64), mpb.WithAutoRefresh())
	overall := pool.AddBar(whole, mpb.PrependDecorators(decor.Name("all", decor.WC{W: 14, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.Percentage()))
	return &bars{pool: pool, overall: overall}
}

func (b *bars) begin(r save.Round) {
	b.share.begin(r)
	speed := &rate{began: time.Now()}
	b.rate = speed
	b.round = b.pool.AddBar(int64(max(r.Frames, 1)),
		mpb.PrependDecorators(decor.Name(fmt.Sprintf("%d %s", r.Number, r.Kind), decor.WC{W: 14, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.Percentage(decor.WC{W: 6}), decor.Any(func(decor.Statistics) string { return speed.String() })))
}

func (b *bars) sent(p save.Progress) {
	b.rate.set(p.Pages * guest.PageSize)
	b.round.SetCurrent(int64(p.Frames))
	b.show(b.share.at(p.Frames))
}

// show keeps the last step for the end: a bar that is full takes nothing more.
func (b *bars) show(part float64) { b.overall.SetCurrent(int64(part * (whole - 1))) }

func (b *bars) done() {
	b.show(b.share.done())
	b.round.SetCurrent(int64(max(b.share.round.Frames, 1)))
}

func (b *bars) close(ok bool) {
	if ok {
		b.overall.SetCurrent(whole)
	} else {
		if b.round != nil {
			b.round.Abort(false)
		}
		b.overall.Abort(false)
	}
	b.pool.Wait()
}

// share is how much of the whole is done, from 0 to 1. It never becomes less.
type share struct {
	round save.Round
	first uint64  // frames of the first round
	ended float64 // by the rounds that have ended
}

func (s *share) begin(r save.Round) {
	s.round = r
	if s.first == 0 {
		s.first = max(r.Frames, 1)
	}
}

// weight is the part of the whole that the round is. How many rounds follow is not known, so a live one is taken for as
// much of what is left as its size lets one expect, and never for more than half of it after the first.
func (s *share) weight() float64 {
	left := 1 - s.ended
	switch {
	case s.round.Kind != save.RoundLive:
		return left
	case s.ended == 0:
		return left * 0.7
	}
	return left * math.Min(0.5, float64(s.round.Frames)/float64(s.first))
}

// at is the share once so many frames of the round are done.
func (s *share) at(frames uint64) float64 {
	return s.ended + s.weight()*(float64(frames)/float64(max(s.round.Frames, 1)))
}

// done ends the round.
func (s *share) done() float64 {
	s.ended += s.weight()
	return s.ended
}
