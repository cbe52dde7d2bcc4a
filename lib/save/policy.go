package save

// Stats is what a policy decides on.
type Stats struct {
	// Iteration counts the rounds that have ended.
	Iteration uint
	// TotalWritten is how many pages the rounds so far were about, whether each had data or not.
	TotalWritten uint64
	// Dirty is how many pages wait to be sent, DirtyUnknown between a round and the reading of the log.
	Dirty int64
}

// DirtyUnknown is the value of Stats.Dirty where the log was not read yet.
const DirtyUnknown = -1

// Decision is a policy's answer.
type Decision int

// The decisions.
const (
	Continue    Decision = iota // another round while the guest runs
	StopAndCopy                 // suspend the guest and send the rest
	Abort                       // give up: the guest runs on here
)

// Policy says when a live migration has copied enough. It is asked twice for each round, before it and after it.
type Policy interface {
	Decide(Stats) Decision
}

// Threshold is the policy of the reference: the end comes with few dirty pages or after some rounds.
type Threshold struct {
	MaxIterations uint  // rounds at most, the first included
	MinDirty      int64 // stop below so many dirty pages
}

// Default is what libxenguest uses where its caller has no policy of its own.
var Default = Threshold{MaxIterations: 5, MinDirty: 50}

// Decide implements Policy.
func (t Threshold) Decide(s Stats) Decision {
	if s.Iteration >= t.MaxIterations || s.Dirty != DirtyUnknown && s.Dirty < t.MinDirty {
		return StopAndCopy
	}
	return Continue
}
