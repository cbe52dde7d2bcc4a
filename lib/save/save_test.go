package save

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"xenferry/lib/guest"
	"xenferry/lib/record"
	"xenferry/lib/xcstream"
)

// script is a Guest, its Control and its Observer, which write down what is asked of them.
type script struct {
	frames uint64
	dirty  []uint64 // what each reading of the log finds: that many pages from PFN 0 on
	defers map[guest.PFN]bool
	stop   bool // suspended
	calls  []string
	fail   string // the call that fails
	log    bool
}

var errScript = errors.New("scripted failure")

func (s *script) call(format string, args ...any) error {
	c := fmt.Sprintf(format, args...)
	s.calls = append(s.calls, c)
	if c == s.fail {
		return errScript
	}
	return nil
}

func (s *script) Domain() xcstream.DomainHeader {
	return xcstream.DomainHeader{Type: xcstream.DomainHVM}
}
func (s *script) Static(context.Context) ([]xcstream.Record, error) {
	policy := xcstream.CPUIDPolicy{{Leaf: 1}}
	return []xcstream.Record{{Type: xcstream.TypeX86CPUIDPolicy, Body: policy}}, s.call("static")
}
func (s *script) Begin(context.Context) ([]xcstream.Record, error) { return nil, s.call("begin") }
func (s *script) Frames() uint64                                   { return s.frames }
func (s *script) StartLog(context.Context) error {
	s.log = true
	return s.call("start log")
}

func (s *script) StopLog(context.Context) error {
	s.log = false
	return s.call("stop log")
}

func (s *script) Dirty(_ context.Context, dirty guest.Bitmap, final bool) (uint64, error) {
	n := uint64(0)
	if len(s.dirty) > 0 {
		n, s.dirty = s.dirty[0], s.dirty[1:]
	}
	dirty.SetFirst(n)
	return n, s.call("dirty final=%v", final)
}

func (s *script) PeekDirty(context.Context, guest.Bitmap) (uint64, error) { return 0, s.call("peek") }

func (s *script) Load(_ context.Context, pfns []guest.PFN, b *Batch) error {
	for _, p := range pfns {
		if s.defers[p] && !s.stop {
			b.Entries = append(b.Entries, xcstream.NewPageEntry(p, guest.XTab))
			b.Deferred = append(b.Deferred, p)
			continue
		}
		b.Entries = append(b.Entries, xcstream.NewPageEntry(p, guest.NoTab))
		b.Pages = append(b.Pages, bytes.Repeat([]byte{1}, guest.PageSize))
	}
	return s.call("load %d", len(pfns))
}

func (s *script) CheckRunning(context.Context) error { return s.call("check") }
func (s *script) Suspended(context.Context) ([]xcstream.Record, guest.Bitmap, error) {
	return nil, guest.NewBitmap(s.frames), s.call("suspended")
}
func (s *script) End(context.Context) ([]xcstream.Record, error) { return nil, s.call("end") }
func (s *script) Close() error                                   { return nil }

func (s *script) Suspend(context.Context) error {
	s.stop = true
	return s.call("suspend")
}
func (s *script) Commit(context.Context) error { return s.call("commit") }

type quiet struct{}

func (quiet) Begin(Round)             {}
func (quiet) Sent(Progress)           {}
func (quiet) Done()                   {}
func (quiet) Suspended(time.Duration) {}

// read returns the types of a stream's records and, for each PAGE_DATA, its PFNs.
func read(t *testing.T, stream []byte) (types []xcstream.Type, pages [][]guest.PFN) {
	t.Helper()
	r := xcstream.NewReader(bytes.NewReader(stream), record.Strict, 0)
	if err := r.Headers(); err != nil {
		t.Fatal(err)
	}
	for {
		typ, _, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		types = append(types, typ)
		if typ == xcstream.TypePageData {
			h, err := r.PageData()
			if err != nil {
				t.Fatal(err)
			}
			var pfns []guest.PFN
			for _, e := range h.Entries {
				if e.Type().HasData() {
					pfns = append(pfns, e.PFN())
				}
			}
			pages = append(pages, pfns)
		}
		if err := r.Skip(); err != nil {
			t.Fatal(err)
		}
		if typ == xcstream.TypeEnd {
			return types, pages
		}
	}
}

// TestReferencePolicy: the sequence of Xen's tools/libs/guest/xg_sr_save.c, send_memory_live: at most five rounds while the guest
// runs, each but the first of what the log said, and the policy asked both before a round and after it.
func TestReferencePolicy(t *testing.T) {
	head := []string{"start log", "static", "begin", "load 200", "check"}
	tail := []string{"suspend", "suspended", "dirty final=true"}
	live := func(n int) []string { return []string{"dirty final=false", fmt.Sprintf("load %d", n), "check"} }
	for _, tt := range []struct {
		name  string
		dirty []uint64
		rest  [][]string
	}{
		{"idle", nil, [][]string{{"dirty final=false"}, tail}},
		{"few", []uint64{49, 3}, [][]string{live(49), tail, {"load 3"}}},
		{"few later", []uint64{50, 10, 0}, [][]string{live(50), live(10), tail}},
		{"busy", []uint64{100, 100, 100, 100, 100, 100}, [][]string{live(100), live(100), live(100), live(100), tail, {"load 100"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{frames: 200, dirty: tt.dirty}
			if err := Run(t.Context(), s, io.Discard, Options{Version: 3, Live: true}, s, quiet{}); err != nil {
				t.Fatal(err)
			}
			want := append(slices.Concat(append([][]string{head}, tt.rest...)...), "end", "stop log", "commit")
			if !slices.Equal(s.calls, want) {
				t.Errorf("calls\n%q, want\n%q", s.calls, want)
			}
		})
	}
}

// rounds is an Observer that keeps each Round.
type rounds struct {
	quiet
	began []Round
}

func (r *rounds) Begin(round Round) { r.began = append(r.began, round) }

// TestRounds: an iteration is numbered by those that have ended, which a round that ends the copying does not; so the final
// one may have its number.
func TestRounds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy Policy
		want   []Round
	}{
		{"few pages", Default, []Round{{1, RoundLive, 200, 0}, {2, RoundLive, 60, 1}, {3, RoundLive, 40, 2}, {4, RoundFinal, 30, 2}}},
		{"rounds", Threshold{MaxIterations: 2}, []Round{{1, RoundLive, 200, 0}, {2, RoundLive, 60, 1}, {3, RoundFinal, 40, 2}}},
	} {
		s, got := &script{frames: 200, dirty: []uint64{60, 40, 30}}, &rounds{}
		if err := Run(t.Context(), s, io.Discard, Options{Version: 3, Live: true, Policy: tt.policy}, s, got); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.began, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got.began, tt.want)
		}
	}
}

// TestDeferred: what could not be read while the guest ran is sent in the final round, whatever the log says.
func TestDeferred(t *testing.T) {
	s := &script{frames: 10, defers: map[guest.PFN]bool{3: true}}
	var out bytes.Buffer
	if err := Run(t.Context(), s, &out, Options{Version: 3, Live: true}, s, quiet{}); err != nil {
		t.Fatal(err)
	}
	if _, pages := read(t, out.Bytes()); len(pages) != 2 || len(pages[0]) != 9 || !slices.Equal(pages[1], []guest.PFN{3}) {
		t.Errorf("pages sent: %v", pages)
	}
}

// TestRecords: the records around the pages, for each version, with our own one and without.
func TestRecords(t *testing.T) {
	spec := &guest.Spec{Kind: guest.PVH}
	for _, tt := range []struct {
		opt  Options
		want []xcstream.Type
	}{
		{Options{Version: 3}, []xcstream.Type{xcstream.TypeX86CPUIDPolicy, xcstream.TypeStaticDataEnd, xcstream.TypePageData, xcstream.TypeEnd}},
		{Options{Version: 2}, []xcstream.Type{xcstream.TypePageData, xcstream.TypeEnd}},
		{Options{Version: 3, Spec: spec}, []xcstream.Type{xcstream.TypeX86CPUIDPolicy, xcstream.TypeStaticDataEnd, xcstream.TypeDomain, xcstream.TypePageData, xcstream.TypeEnd}},
		{
			Options{Version: 3, Live: true, Verify: true},
			[]xcstream.Type{xcstream.TypeX86CPUIDPolicy, xcstream.TypeStaticDataEnd, xcstream.TypePageData, xcstream.TypeVerify, xcstream.TypePageData, xcstream.TypeEnd},
		},
	} {
		var out bytes.Buffer
		s := &script{frames: 5}
		if err := Run(t.Context(), s, &out, tt.opt, s, quiet{}); err != nil {
			t.Fatal(err)
		}
		if types, _ := read(t, out.Bytes()); !slices.Equal(types, tt.want) {
			t.Errorf("%+v: records %v, want %v", tt.opt, types, tt.want)
		}
	}
}

// TestFailures: whichever call fails, the error comes out, the log is off, and nothing is committed after a failure.
func TestFailures(t *testing.T) {
	for _, fail := range []string{
		"static", "begin", "start log", "load 200", "check", "dirty final=false", "load 100", "suspend", "suspended",
		"dirty final=true", "end", "commit",
	} {
		s := &script{frames: 200, dirty: []uint64{100, 0}, fail: fail}
		var out bytes.Buffer
		err := Run(t.Context(), s, &out, Options{Version: 3, Live: true}, s, quiet{})
		if !errors.Is(err, errScript) {
			t.Errorf("%s fails: error %v", fail, err)
		}
		if s.log && fail != "start log" {
			t.Errorf("%s fails: the log is left on", fail)
		}
		if end := make([]byte, record.HeaderSize); out.Len() > 64 && bytes.HasSuffix(out.Bytes(), end) {
			t.Errorf("%s fails: END was written", fail)
		}
		if fail != "commit" && slices.Contains(s.calls, "commit") {
			t.Errorf("%s fails: committed all the same", fail)
		}
	}
}

type giveUp struct{}

func (giveUp) Decide(s Stats) Decision {
	if s.Iteration == 2 {
		return Abort
	}
	return Continue
}

func TestAbort(t *testing.T) {
	s := &script{frames: 200, dirty: []uint64{100, 100, 100}}
	err := Run(t.Context(), s, io.Discard, Options{Version: 3, Live: true, Policy: giveUp{}}, s, quiet{})
	if !errors.Is(err, ErrAborted) || s.log || s.stop {
		t.Errorf("error %v, log %v, suspended %v", err, s.log, s.stop)
	}
}

// stuck is a destination that nobody reads.
type stuck struct{ asked, release chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	<-s.release
	return 0, io.ErrClosedPipe
}

// TestCancelWhileStuck: a save ends with its context although its writer hangs, and turns the log off.
func TestCancelWhileStuck(t *testing.T) {
	cause := errors.New("signal")
	for _, live := range []bool{true, false} {
		ctx, cancel := context.WithCancelCause(t.Context())
		dst := stuck{make(chan struct{}, 1), make(chan struct{})}
		go func() {
			<-dst.asked
			cancel(cause)
		}()
		s := &script{frames: 200}
		if err := Run(ctx, s, dst, Options{Version: 3, Live: live}, s, quiet{}); !errors.Is(err, cause) {
			t.Errorf("error %v", err)
		}
		if s.log {
			t.Error("the log is left on")
		}
		close(dst.release)
	}
}
