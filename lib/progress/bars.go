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

	kind  save.RoundKind
	size  uint64  // of the round, in pages
	first uint64  // of the first round
	ended float64 // of the whole, by the rounds that have ended
}

func newBars(w io.Writer) *bars {
	pool := mpb.New(mpb.WithOutput(w), mpb.WithWidth(64), mpb.WithAutoRefresh())
	overall := pool.AddBar(1000, mpb.PrependDecorators(decor.Name("all", decor.WC{W: 14, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.Percentage()))
	return &bars{pool: pool, overall: overall}
}

func (b *bars) begin(r save.Round) {
	b.kind, b.size = r.Kind, r.Frames
	if b.first == 0 {
		b.first = max(r.Frames, 1)
	}
	speed := &rate{began: time.Now()}
	b.rate = speed
	b.round = b.pool.AddBar(int64(max(r.Frames, 1)),
		mpb.PrependDecorators(decor.Name(fmt.Sprintf("%d %s", r.Number, r.Kind), decor.WC{W: 14, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.Percentage(decor.WC{W: 6}), decor.Any(func(decor.Statistics) string { return speed.String() })))
}

func (b *bars) sent(p save.Progress) {
	b.rate.set(p.Pages * guest.PageSize)
	b.round.SetCurrent(int64(p.Frames))
	b.show(b.ended + b.weight()*float64(p.Frames)/float64(max(b.size, 1)))
}

// weight is the part of what is left that the round will have done. How many rounds follow is not known: a live one takes
// its share of work to be what its size is beside as much again, so that the whole never runs backwards.
func (b *bars) weight() float64 {
	left := 1 - b.ended
	if b.kind != save.RoundLive {
		return left
	}
	if b.ended == 0 {
		return left * 0.7
	}
	return left * math.Min(0.5, float64(b.size)/float64(b.first))
}

func (b *bars) show(share float64) { b.overall.SetCurrent(int64(share * 999)) }

func (b *bars) done() {
	b.ended += b.weight()
	b.show(b.ended)
	b.round.SetCurrent(int64(max(b.size, 1)))
}

func (b *bars) close(ok bool) {
	if ok {
		b.overall.SetCurrent(1000)
	} else {
		if b.round != nil {
			b.round.Abort(false)
		}
		b.overall.Abort(false)
	}
	b.pool.Wait()
}
