package hosttest

import (
	"context"

	"xenferry/lib/guest"
)

// dirty reads the log of frames 0 to 127 and wants exactly these in it.
func (s *suite) dirty(id guest.DomID, clean bool, want ...uint64) {
	s.Helper()
	const frames = 128
	b := guest.NewBitmap(frames)
	n, err := s.Dirty(s.ctx, id, frames, b, clean, false)
	s.ok(err)
	if n != b.Count() {
		s.Errorf("the log tells %d dirty frames and marks %d", n, b.Count())
	}
	if !s.has(LogOfMappings) {
		want = nil
	}
	wanted := guest.NewBitmap(frames)
	for _, p := range want {
		wanted.Set(p)
	}
	for p := range uint64(frames) {
		if b.Test(p) != wanted.Test(p) {
			s.Errorf("frame %d: dirty %v, want %v", p, b.Test(p), wanted.Test(p))
		}
	}
}

// loggable is a kind of domain in each of the ways in which the host can log its writes.
func (s *suite) loggable() []guest.Kind {
	if !s.has(LogOfPV) {
		return []guest.Kind{guest.HVM}
	}
	return []guest.Kind{guest.PV64, guest.HVM}
}

func logDirty(s *suite) {
	for _, kind := range s.loggable() {
		id := s.create(kind, 1, 200)
		gfns := s.populate(id, 0, 128)
		set := func(i ...int) {
			for _, i := range i {
				s.write(id, gfns[i:i+1], func(_ int, p []byte) { p[7]++ })
			}
		}
		set(1)
		s.ok(s.SetLogDirty(s.ctx, id, false)) // off already
		_, err := s.Dirty(s.ctx, id, 128, guest.NewBitmap(128), true, false)
		s.refused(err, nil, "read a log that is off")

		s.ok(s.SetLogDirty(s.ctx, id, true))
		s.refused(s.SetLogDirty(s.ctx, id, true), nil, "begin a log that is on")
		if !s.info(id).LogDirty {
			s.Error("the log that is on is not told")
		}
		s.dirty(id, true)
		set(0, 63, 64)
		s.dirty(id, false, 0, 63, 64) // peek
		set(127)
		s.dirty(id, true, 0, 63, 64, 127)
		s.dirty(id, true)

		m, err := s.Map(s.ctx, id, gfns[:20], guest.ReadOnly)
		s.ok(err)
		s.ok(m.Close())
		s.dirty(id, true)

		// The log may be read while a mapping is open; what was written is in it after Close at the latest.
		m, err = s.Map(s.ctx, id, gfns[30:31], guest.ReadWrite)
		s.ok(err)
		m.Pages[0][9] = 9
		b := guest.NewBitmap(128)
		_, err = s.Dirty(s.ctx, id, 128, b, true, false)
		s.ok(err)
		s.ok(m.Close())
		s.dirty(id, true, 30)

		// The last read needs the domain not to run; this one never did. A shorter log is a part of it.
		set(2, 100)
		n, err := s.Dirty(s.ctx, id, 10, guest.NewBitmap(10), true, true)
		if s.ok(err); n != 1 && s.has(LogOfMappings) {
			s.Errorf("%d dirty frames below 10, want 1", n)
		}
		s.ok(s.SetLogDirty(s.ctx, id, false))
		set(5)
		s.ok(s.SetLogDirty(s.ctx, id, true))
		s.dirty(id, true)
		s.ok(s.SetLogDirty(s.ctx, id, false))
	}
}

// logDirtyOfTwo reads two logs in turn: neither reading may take anything out of the other.
func logDirtyOfTwo(s *suite) {
	a, b := s.create(s.loggable()[0], 1, 200), s.create(guest.HVM, 1, 200)
	ga, gb := s.populate(a, 0, 128), s.populate(b, 0, 128)
	set := func(id guest.DomID, g guest.GFN) {
		s.write(id, []guest.GFN{g}, func(_ int, p []byte) { p[0]++ })
	}
	s.ok(s.SetLogDirty(s.ctx, a, true))
	set(a, ga[3])
	s.ok(s.SetLogDirty(s.ctx, b, true))
	set(b, gb[4])
	set(a, ga[5])
	s.dirty(b, true, 4)
	s.dirty(a, true, 3, 5)
	set(a, ga[6])
	set(b, gb[7])
	s.dirty(a, true, 6)
	s.ok(s.SetLogDirty(context.WithoutCancel(s.ctx), a, false))
	s.dirty(b, true, 7)
}
