package progress

import (
	"fmt"
	"sync/atomic"
	"time"
)

// rate is a round's mean speed. The bar's goroutine reads it.
type rate struct {
	at     time.Time
	octets atomic.Uint64
}

func (r *rate) set(octets uint64) { r.octets.Store(octets) }

// String is the speed in MiB/s.
func (r *rate) String() string {
	return fmt.Sprintf(" %6.0f MiB/s", mib(r.octets.Load())/max(time.Since(r.at).Seconds(), 1e-6))
}
