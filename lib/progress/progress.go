// Package progress shows a save to people and to programs: bars on a terminal or else log lines, and statistics as
// JSON lines.
package progress

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"xenferry/lib/guest"
	"xenferry/lib/save"
)

// Event is one line of statistics. Type is "round" after each round, "downtime" at the end of one, "total" at last.
type Event struct {
	Type     string  `json:"type"`
	Round    int     `json:"round,omitempty"`
	Kind     string  `json:"kind,omitempty"`     // live, final or verify
	Frames   uint64  `json:"frames,omitempty"`   // that the round was about: in a later live round, how many were dirty
	Sent     uint64  `json:"sent,omitempty"`     // pages with data
	Deferred uint64  `json:"deferred,omitempty"` // put off to the final round
	Octets   uint64  `json:"octets,omitempty"`
	Seconds  float64 `json:"seconds"`
	Rate     float64 `json:"octets_per_second,omitempty"`
	// Until says what ended a downtime: "running" is the target's word that the guest runs there, "written" only the
	// end of the image, after which the target has work left; "resumed" that the guest runs on here.
	Until string `json:"until,omitempty"`
	// Suspend is how much of a downtime the guest took to suspend itself after it was asked.
	Suspend float64 `json:"suspend_seconds,omitempty"`
}

// Meter is a save.Observer that shows, logs and counts.
type Meter struct {
	log   zerolog.Logger
	stats *json.Encoder
	bars  *bars

	began     time.Time
	round     save.Round
	roundAt   time.Time
	progress  save.Progress
	total     Event
	suspended time.Time // when the guest was asked
	took      time.Duration
	downtime  string // in words, said at the end
}

// New returns a Meter. There are bars if stderr is a terminal. Either file may be nil.
func New(log zerolog.Logger, stderr *os.File, stats *os.File) *Meter {
	m := &Meter{log: log, began: time.Now(), total: Event{Type: "total"}}
	if stats != nil {
		m.stats = json.NewEncoder(stats)
	}
	if _, rows, err := term.GetSize(int(stderr.Fd())); err == nil && rows > 0 {
		m.bars = newBars(stderr)
	}
	return m
}

// Begin implements save.Observer.
func (m *Meter) Begin(r save.Round) {
	m.round, m.roundAt, m.progress = r, time.Now(), save.Progress{}
	if m.bars != nil {
		m.bars.begin(r)
	}
}

// Sent implements save.Observer.
func (m *Meter) Sent(p save.Progress) {
	m.progress = p
	if m.bars != nil {
		m.bars.sent(p)
	}
}

// Done implements save.Observer.
func (m *Meter) Done() {
	seconds := time.Since(m.roundAt).Seconds()
	e := Event{
		Type: "round", Round: m.round.Number, Kind: string(m.round.Kind), Frames: m.round.Frames, Sent: m.progress.Pages,
		Deferred: m.progress.Deferred, Octets: m.progress.Pages * guest.PageSize, Seconds: seconds,
	}
	e.Rate = float64(e.Octets) / max(seconds, 1e-6)
	m.total.Sent += e.Sent
	m.total.Octets += e.Octets
	m.total.Deferred += e.Deferred
	m.emit(e)
	if m.bars != nil {
		m.bars.done()
		return
	}
	m.log.Info().Msgf("round %d (%s): %d of %d pages sent, %.1f MiB in %.2f s, %.0f MiB/s",
		e.Round, e.Kind, e.Sent, e.Frames, mib(e.Octets), seconds, mib(e.Octets)/max(seconds, 1e-6))
}

// Suspended implements save.Observer.
func (m *Meter) Suspended(took time.Duration) {
	m.suspended, m.took = time.Now().Add(-took), took
}

// Downtime ends the downtime that began when the guest was asked to suspend.
func (m *Meter) Downtime(until string) {
	if m.suspended.IsZero() {
		return
	}
	down := time.Since(m.suspended)
	m.emit(Event{Type: "downtime", Seconds: down.Seconds(), Until: until, Suspend: m.took.Seconds()})
	words := map[string]string{
		"running": "until the target reported that the guest runs",
		"written": "so far, with the image complete and the guest not running anywhere yet",
		"resumed": "until the guest ran on here",
	}
	m.downtime = fmt.Sprintf("downtime %.1f ms, %s", float64(down.Microseconds())/1000, words[until])
}

// Close ends the show, and writes the totals if the save succeeded.
func (m *Meter) Close(ok bool) {
	if m.bars != nil {
		m.bars.close(ok)
	}
	if m.downtime != "" {
		m.log.Info().Msg(m.downtime)
	}
	if !ok {
		return
	}
	m.total.Seconds = time.Since(m.began).Seconds()
	m.total.Rate = float64(m.total.Octets) / max(m.total.Seconds, 1e-6)
	m.emit(m.total)
	m.log.Info().Msgf("%d pages, %.1f MiB sent in %.2f s", m.total.Sent, mib(m.total.Octets), m.total.Seconds)
}

// emit writes e. Statistics are a courtesy: who stops reading them does not stop a migration, but is told of once.
func (m *Meter) emit(e Event) {
	if m.stats == nil {
		return
	}
	if err := m.stats.Encode(e); err != nil {
		m.log.Warn().Msgf("no more statistics: %v", err)
		m.stats = nil
	}
}

func mib(octets uint64) float64 { return float64(octets) / (1 << 20) }
