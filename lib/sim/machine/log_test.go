package machine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"xenferry/lib/guest"
)

// logModes runs f with either log. Where the kernel has none the test says so.
func logModes(t *testing.T, f func(t *testing.T, mode LogMode)) {
	t.Run("software", func(t *testing.T) { f(t, LogSoftware) })
	t.Run("kernel", func(t *testing.T) {
		if m, err := New(Options{Memory: minMemory, Log: LogKernel}); err != nil {
			t.Skipf("the kernel's log needs Linux 6.7 and userfaultfd: %v", err)
		} else {
			m.Close()
		}
		f(t, LogKernel)
	})
}

// scribble writes to random pages, as a guest does, until stop is closed.
func scribble(v *View, frames []guest.MFN, seed uint64, stop <-chan struct{}) {
	rng := rand.New(rand.NewPCG(seed, 0))
	for n := uint64(1); ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		f := frames[rng.IntN(len(frames))]
		p := v.Page(f)
		binary.LittleEndian.PutUint64(p[rng.IntN(512)*8:], n)
		v.Wrote(f)
		if n%64 == 0 {
			runtime.Gosched() // the reader needs a processor, too
		}
	}
}

// Two guests write all the time while their logs are read in turn and what the logs name is copied. When they have
// stopped, one more round makes both copies equal to the guests: then no write was missed.
func TestLogMissesNothing(t *testing.T) {
	logModes(t, func(t *testing.T, mode LogMode) {
		const pages, rounds = 1500, 40
		m := newMachine(t, Options{Log: mode})
		type subject struct {
			id     guest.DomID
			v      *View
			frames []guest.MFN
			copied [][]byte
		}
		var all []*subject
		for _, kind := range []guest.Kind{guest.HVM, guest.PV64} {
			s := &subject{id: create(t, m, kind, pages)}
			s.v, s.frames = populate(t, m, s.id, pages)
			for range pages {
				s.copied = append(s.copied, make([]byte, guest.PageSize))
			}
			all = append(all, s)
		}
		round := func(s *subject) uint64 {
			b := guest.NewBitmap(pages)
			n, err := m.Dirty(s.id, pages, b, true, false)
			if err != nil {
				t.Fatal(err)
			}
			for p, ok := b.Next(0); ok; p, ok = b.Next(p + 1) {
				copy(s.copied[p], s.v.Page(s.frames[p]))
			}
			return n
		}
		stop := make(chan struct{})
		var writers sync.WaitGroup
		for i, s := range all {
			writers.Go(func() { scribble(s.v, s.frames, uint64(i), stop) })
		}
		for _, s := range all {
			if err := m.SetLogDirty(s.id, true); err != nil {
				t.Fatal(err)
			}
			for p, f := range s.frames {
				copy(s.copied[p], s.v.Page(f))
			}
		}
		for range rounds {
			for _, s := range all {
				round(s)
			}
		}
		close(stop)
		writers.Wait()
		for _, s := range all {
			round(s)
			for p, f := range s.frames {
				if !bytes.Equal(s.copied[p], s.v.Page(f)) {
					t.Fatalf("page %d of domain %d was written and not told", p, s.id)
				}
			}
			if n := round(s); n != 0 {
				t.Errorf("%d pages of a guest that does not run are dirty", n)
			}
		}
	})
}

// Reading a page, even one never touched before, does not make it dirty; and what is written is told exactly.
func TestLogIsExact(t *testing.T) {
	logModes(t, func(t *testing.T, mode LogMode) {
		m := newMachine(t, Options{Log: mode})
		id := create(t, m, guest.HVM, 1000)
		v, frames := populate(t, m, id, 1000)
		if err := m.SetLogDirty(id, true); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		sum := 0
		for range 20 {
			want := guest.NewBitmap(1000)
			for range rng.IntN(100) {
				p := rng.Uint64N(1000)
				want.Set(p)
				v.Page(frames[p])[rng.IntN(4096)]++
				v.Wrote(frames[p])
				sum += int(v.Page(frames[rng.IntN(1000)])[0]) // a read
			}
			got := guest.NewBitmap(1000)
			n, err := m.Dirty(id, 1000, got, true, false)
			if err != nil {
				t.Fatal(err)
			}
			if n != want.Count() || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%d pages are dirty, %d were written (%d)", n, want.Count(), sum)
			}
		}
	})
}

// From 4.22 on, pages that come are dirty and pages that go are not; before, neither concerns the log.
func TestLogOfPhysmap(t *testing.T) {
	for _, minor := range []uint32{20, 22} {
		m := newMachine(t, Options{Log: LogSoftware, Release: guest.Release{Major: 4, Minor: minor}})
		id := create(t, m, guest.HVM, 100)
		v, frames := populate(t, m, id, 10)
		if err := m.SetLogDirty(id, true); err != nil {
			t.Fatal(err)
		}
		v.Wrote(frames[3])
		v.Wrote(frames[4])
		b := guest.NewBitmap(100)
		if _, err := m.Dirty(id, 100, b, false, false); err != nil {
			t.Fatal(err)
		}
		if err := m.Populate(id, []guest.GFN{50}); err != nil {
			t.Fatal(err)
		}
		if err := m.Depopulate(id, []guest.GFN{3}); err != nil {
			t.Fatal(err)
		}
		_, err := m.Dirty(id, 100, b, true, false)
		if err != nil || b.Test(50) != (minor >= 22) || b.Test(3) != (minor < 22) || !b.Test(4) {
			t.Errorf("4.%d: added dirty %v, removed dirty %v, written dirty %v: %v", minor, b.Test(50), b.Test(3), b.Test(4), err)
		}
	}
}

// A running domain cannot have its last read; frames of an HVM domain that are mapped writably count in it.
func TestLogFinal(t *testing.T) {
	m := newMachine(t, Options{Log: LogSoftware})
	id := create(t, m, guest.HVM, 100)
	populate(t, m, id, 10)
	if err := m.SetLogDirty(id, true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Map(id, []guest.GFN{7}, make([]guest.MFN, 1), guest.ReadWrite); err != nil {
		t.Fatal(err)
	}
	b := guest.NewBitmap(10)
	if n, err := m.Dirty(id, 10, b, true, true); n != 1 || !b.Test(7) || err != nil {
		t.Errorf("final read: %d dirty, %v", n, err)
	}
	m.domains[id].pauses = 0
	if _, err := m.Dirty(id, 10, b, true, true); err == nil {
		t.Error("final read of a running domain")
	}
}

// BenchmarkDirty reads the log of a 1 GiB guest on a machine of 4 GiB, one page in eight of which was written.
func BenchmarkDirty(b *testing.B) {
	const pages = 1 << 18
	for name, mode := range map[string]LogMode{"kernel": LogKernel, "software": LogSoftware} {
		b.Run(name, func(b *testing.B) {
			m := newMachine(b, Options{Memory: 4 << 30, Log: mode})
			id := create(b, m, guest.HVM, pages)
			v, frames := populate(b, m, id, pages)
			for _, f := range frames {
				v.Page(f)[0] = 1
			}
			if err := m.SetLogDirty(id, true); err != nil {
				b.Fatal(err)
			}
			dirty := guest.NewBitmap(pages)
			for b.Loop() {
				b.StopTimer()
				for i := 0; i < pages; i += 8 {
					v.Page(frames[i])[0]++
					v.Wrote(frames[i])
				}
				b.StartTimer()
				n, err := m.Dirty(id, pages, dirty, true, false)
				if err != nil || n < pages/8 {
					b.Fatal(n, err)
				}
			}
		})
	}
}
