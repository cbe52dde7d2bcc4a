package progress

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// rate is a round's mean speed, taken anew with each batch. The bar's goroutine reads it.
type rate struct {
	began time.Time
	speed atomic.Uint64 // the bits of MiB/s
}

func (r *rate) set(octets uint64) {
	speed := mib(octets) / max(time.Since(r.began).Seconds(), 1e-6)
	r.speed.Store(math.Float64bits(speed))
}

// String is the speed in MiB/s.
func (r *rate) String() string {
	return fmt.Sprintf(" %6.0f MiB/s", math.Float64frombits(r.speed.Load()))
}
