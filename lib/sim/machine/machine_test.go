package machine

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"xenferry/lib/guest"
)

func newMachine(t testing.TB, o Options) *Machine {
	t.Helper()
	if o.Memory == 0 {
		o.Memory = 16 << 20
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func create(t testing.TB, m *Machine, kind guest.Kind, pages uint64) guest.DomID {
	t.Helper()
	id, err := m.Create(guest.Spec{Kind: kind, VCPUs: 2, MaxPages: pages})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// populate gives a domain n pages from PFN 0 on and returns its view and their frames.
func populate(t testing.TB, m *Machine, id guest.DomID, n int) (*View, []guest.MFN) {
	t.Helper()
	v, err := m.View(id)
	if err != nil {
		t.Fatal(err)
	}
	pfns := make([]guest.PFN, n)
	for i := range pfns {
		pfns[i] = guest.PFN(i)
	}
	mfns, err := v.Populate(pfns)
	if err != nil {
		t.Fatal(err)
	}
	return v, mfns
}

func TestNewRefuses(t *testing.T) {
	for _, o := range []Options{
		{Memory: 4096},
		{Memory: 1 << 60},
		{Memory: 16 << 20, Release: guest.Release{Major: 4, Minor: 6}},
	} {
		if m, err := New(o); err == nil {
			m.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
}

// A free list hands every frame but 0 out once, in an order that is neither ascending nor another seed's, and goes on
// when frames come back.
func TestFreeList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const frames = 64
		m := &Machine{rng: newRand(rapid.Uint64().Draw(t, "seed"))}
		l := newFreeList(frames)
		var out []uint32
		for i := range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "put") == 0 && len(out) > 0 {
				j := rapid.IntRange(0, len(out)-1).Draw(t, "which")
				l.put(out[j])
				out = slices.Delete(out, j, j+1)
				continue
			}
			some := make([]guest.MFN, rapid.IntRange(0, min(5, int(l.left()))).Draw(t, "some"))
			l.take(m.rng, some)
			for _, n := range some {
				f := uint32(n)
				if f == 0 || f >= frames || slices.Contains(out, f) {
					t.Fatalf("step %d, %d frames out: got %d", i, len(out), f)
				}
				out = append(out, f)
			}
			if l.left() != uint64(frames-1-len(out)) {
				t.Fatalf("%d left with %d out", l.left(), len(out))
			}
		}
	})
}

func TestScattered(t *testing.T) {
	a, b := newMachine(t, Options{Seed: 1}), newMachine(t, Options{Seed: 2})
	_, fa := populate(t, a, create(t, a, guest.HVM, 1000), 1000)
	_, fb := populate(t, b, create(t, b, guest.HVM, 1000), 1000)
	if slices.Equal(fa, fb) {
		t.Error("two seeds hand frames out in one order")
	}
	next := 0
	for i := range fa[1:] {
		if fa[i+1] == fa[i]+1 {
			next++
		}
	}
	if next > 20 {
		t.Errorf("%d of 1000 frames follow their predecessor", next)
	}
}

// All memory comes back from a domain that is destroyed, once nobody maps it writably.
func TestDestroy(t *testing.T) {
	for _, kind := range []guest.Kind{guest.PV64, guest.HVM} {
		m := newMachine(t, Options{})
		before := m.free.left()
		id := create(t, m, kind, 100)
		v, mfns := populate(t, m, id, 100)
		gfns := []guest.GFN{guest.GFN(v.M2P(mfns[5]))}
		if kind.PV() {
			gfns[0] = guest.GFN(mfns[5])
		}
		hold, _, err := m.Map(id, gfns, make([]guest.MFN, 1), guest.ReadWrite)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Destroy(id); err != nil {
			t.Fatal(err)
		}
		if i, err := m.Info(id); err != nil || !i.Dying {
			t.Errorf("%v: a domain whose frames are mapped is not dying: %+v, %v", kind, i, err)
		}
		if _, err := v.Populate([]guest.PFN{500}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: a dying domain gets memory: %v", kind, err)
		}
		if !m.Unmap(hold) || m.Unmap(hold) {
			t.Errorf("%v: a mapping was not unmapped once", kind)
		}
		if _, err := m.Info(id); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, unix.ESRCH) {
			t.Errorf("%v: a destroyed domain: %v", kind, err)
		}
		if left := m.free.left(); left != before {
			t.Errorf("%v: %d of %d frames came back", kind, left, before)
		}
		if v.Page(mfns[0]) != nil {
			t.Errorf("%v: a destroyed domain's page can be reached", kind)
		}
	}
}

// Frames keep what their last owner left in them, unless they are scrubbed.
func TestContents(t *testing.T) {
	for _, scrub := range []bool{false, true} {
		m := newMachine(t, Options{Scrub: scrub})
		n := int(m.free.left())
		id := create(t, m, guest.HVM, uint64(n))
		v, mfns := populate(t, m, id, n)
		for _, f := range mfns {
			fill(v.Page(f), 7)
		}
		if err := m.Destroy(id); err != nil {
			t.Fatal(err)
		}
		v, mfns = populate(t, m, create(t, m, guest.HVM, 10), 10)
		want := byte(7)
		if scrub {
			want = ScrubPattern
		}
		for _, f := range mfns {
			if p := v.Page(f); bytes.Count(p, []byte{want}) != len(p) {
				t.Fatalf("scrub %v: a new frame holds % x…", scrub, p[:8])
			}
		}
		if _, err := v.Populate(make([]guest.PFN, n)); !errors.Is(err, unix.EBUSY) {
			t.Errorf("more memory than there is: %v", err)
		}
		if i, _ := m.Info(v.ID()); i.TotPages != 10 {
			t.Errorf("an attempt that failed left %d pages of 10", i.TotPages)
		}
	}
}

func TestP2MHoles(t *testing.T) {
	m := newMachine(t, Options{})
	id := create(t, m, guest.HVM, 10)
	far := guest.GFN(maxGFN - 1)
	if err := m.Populate(id, []guest.GFN{0, far, 1 << 30}); err != nil {
		t.Fatal(err)
	}
	if g, err := m.MaxGFN(id); g != far || err != nil {
		t.Errorf("highest GFN %#x, %v", g, err)
	}
	if err := m.Populate(id, []guest.GFN{maxGFN}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a GFN past the end: %v", err)
	}
	if err := m.Populate(id, []guest.GFN{far}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a GFN that is there: %v", err)
	}
}

// A dirtySet is a set of PFNs, against a map.
func TestDirtySet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pfn := rapid.OneOf(rapid.Uint64Range(0, 200), rapid.Uint64Range(leafBits-70, leafBits+70), rapid.Uint64Range(0, 1<<21))
		s, model := newDirtySet(), map[uint64]bool{}
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			switch p := pfn.Draw(t, "pfn"); rapid.IntRange(0, 9).Draw(t, "op") {
			case 0:
				s.reset()
				clear(model)
			case 1:
				s.unset(guest.PFN(p))
				delete(model, p)
			default:
				s.set(guest.PFN(p))
				model[p] = true
			}
		}
		frames := pfn.Draw(t, "frames")
		b := guest.NewBitmap(frames)
		want := uint64(0)
		for p := range model {
			if p < frames {
				want++
			}
		}
		if n := s.read(b, frames); n != want || b.Count() != want {
			t.Fatalf("%d and %d of %d frames dirty, want %d", n, b.Count(), frames, want)
		}
		for p := range model {
			if p < frames && !b.Test(p) {
				t.Fatalf("frame %d is missing", p)
			}
		}
	})
}

// BenchmarkPopulate gives a domain 1024 frames at a time of a machine of 4 GiB.
func BenchmarkPopulate(b *testing.B) {
	m := newMachine(b, Options{Memory: 4 << 30, Log: LogSoftware})
	const batch, all = 1024, 1 << 19
	id := create(b, m, guest.HVM, all)
	gfns := make([]guest.GFN, all)
	for i := range gfns {
		gfns[i] = guest.GFN(i)
	}
	at := 0
	for b.Loop() {
		if at == all {
			b.StopTimer()
			if err := m.Depopulate(id, gfns); err != nil {
				b.Fatal(err)
			}
			at = 0
			b.StartTimer()
		}
		if err := m.Populate(id, gfns[at:at+batch]); err != nil {
			b.Fatal(err)
		}
		at += batch
	}
}
