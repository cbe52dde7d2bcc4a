package save

import "time"

// RoundKind says what a round is.
type RoundKind string

// The kinds of round. In the final one and the one for VERIFY the guest is suspended.
const (
	RoundLive   RoundKind = "live"
	RoundFinal  RoundKind = "final"
	RoundVerify RoundKind = "verify"
)

// Round is one pass over pages.
type Round struct {
	Number int // from 1
	Kind   RoundKind
	Frames uint64 // that it is about, with data or not
	// Iteration is how many rounds have ended while the guest ran, as the policy counts them (Stats.Iteration).
	Iteration uint
}

// Progress is how far a round is.
type Progress struct {
	Frames   uint64 // done
	Pages    uint64 // of them sent with data
	Deferred uint64 // of them put off, since they changed while they were read
}

func (p *Progress) add(o Progress) {
	p.Frames += o.Frames
	p.Pages += o.Pages
	p.Deferred += o.Deferred
}

// Observer is told how a save goes on. Its methods are called from the goroutine of Run and should return at once.
type Observer interface {
	Begin(Round)
	Sent(Progress) // after each batch that was written, with the round's sums so far
	Done()
	Suspended(took time.Duration) // the guest is suspended, so long after it was asked
}
