package progress

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"xenferry/lib/cli"
	"xenferry/lib/save"
)

// TestMonotone: the share of the whole never runs backwards and ends at all of it, whatever the rounds are.
func TestMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s share
		last := 0.0
		look := func(now float64) {
			if now < last || now > 1 {
				t.Fatalf("from %g to %g", last, now)
			}
			last = now
		}
		live := rapid.IntRange(0, 6).Draw(t, "live rounds")
		for i := range live + 1 {
			r := save.Round{Number: i + 1, Kind: save.RoundLive, Frames: rapid.Uint64Range(0, 3000).Draw(t, "frames")}
			if i == live {
				r.Kind = save.RoundFinal
			}
			s.begin(r)
			for done := uint64(0); done < r.Frames; look(s.at(done)) {
				done = min(r.Frames, done+rapid.Uint64Range(1, 1024).Draw(t, "batch"))
			}
			look(s.done())
		}
		if last < 0.999999 {
			t.Errorf("after the final round: %g", last)
		}
	})
}

// TestBars: the show ends, also with rounds of no pages and with a save that failed.
func TestBars(t *testing.T) {
	for _, ok := range []bool{true, false} {
		b := newBars(io.Discard)
		b.begin(save.Round{Number: 1, Kind: save.RoundLive, Frames: 10})
		b.sent(save.Progress{Frames: 10, Pages: 10})
		b.done()
		b.begin(save.Round{Number: 2, Kind: save.RoundFinal})
		if ok {
			b.done()
		}
		b.close(ok)
	}
}

// TestStats: a JSON object a line, with what happened; and lines for people where no terminal is.
func TestStats(t *testing.T) {
	name := filepath.Join(t.TempDir(), "stats")
	out, err := ParseOutput(name)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := out.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stats.Close() }()
	var log bytes.Buffer
	m := New(cli.NewLog(&log, "xc-save"), stats, stats) // no terminal
	m.Begin(save.Round{Number: 1, Kind: save.RoundLive, Frames: 10})
	m.Sent(save.Progress{Frames: 10, Pages: 7, Deferred: 1})
	m.Done()
	m.Suspended(time.Millisecond)
	m.Downtime("running")
	m.Close(true)
	var events []Event
	written, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for lines := json.NewDecoder(bytes.NewReader(written)); lines.More(); {
		var e Event
		if err := lines.Decode(&e); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	if len(events) != 3 || events[0].Sent != 7 || events[0].Frames != 10 || events[0].Deferred != 1 || events[1].Until != "running" ||
		events[1].Seconds < 0.001 || events[2].Octets != 7*4096 {
		t.Errorf("%+v", events)
	}
	for _, want := range []string{"xc-save: round 1 (live): 7 of 10 pages sent", "\nxc-save: downtime ", "\nxc-save: 7 pages, 0.0 MiB sent"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in\n%s", want, log.String())
		}
	}
}
