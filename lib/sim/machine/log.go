package machine

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// dirtyLog gathers, by machine frame, what was written since it was last gathered. Marks are made in software: by the
// machine itself, for clients, and by guests where the kernel does not watch them.
type dirtyLog struct {
	mu     sync.Mutex // one gathering at a time; taken before Machine.mu
	marks  []uint64   // a bit per frame, set and taken atomically
	kernel *kernelLog // nil for a software log
}

func newDirtyLog(mem []byte, mode LogMode) (*dirtyLog, error) {
	l := &dirtyLog{marks: make([]uint64, (len(mem)/guest.PageSize+63)/64)}
	if mode == LogSoftware {
		return l, nil
	}
	k, err := newKernelLog(mem)
	if err != nil && mode == LogKernel {
		return nil, fmt.Errorf("machine: no dirty log of the kernel: %w", err)
	}
	l.kernel = k
	return l, nil
}

func (l *dirtyLog) close() {
	if l.kernel != nil {
		l.kernel.close()
	}
}

// mark notes that frame f was written. It may be called with or without any lock. That the bit is set already is no
// reason not to set it: a processor may look at it before the write is there for who gathers it.
func (l *dirtyLog) mark(f guest.MFN) {
	atomic.OrUint64(&l.marks[f/64], 1<<(f%64))
}

// gather calls share with runs of frames written since the last gathering, each exactly once, and forgets them.
// A write that is still going on is told now or the next time.
func (l *dirtyLog) gather(share func(from, to guest.MFN)) error {
	for i := range l.marks {
		if atomic.LoadUint64(&l.marks[i]) == 0 {
			continue
		}
		w := atomic.SwapUint64(&l.marks[i], 0)
		for b := range guest.MFN(64) {
			if f := guest.MFN(i)*64 + b; w>>b&1 != 0 {
				share(f, f+1)
			}
		}
	}
	if l.kernel == nil || !l.kernel.begun {
		return nil
	}
	return l.kernel.scan(len(l.kernel.mem)/guest.PageSize, share)
}

// gather shares what was written out to every domain whose log is on, through its owner and M2P. m.log.mu is held.
func (m *Machine) gather() error {
	err := m.log.gather(func(from, to guest.MFN) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for f := from; f < to; f++ {
			if d := m.domain(m.frames[f].owner()); d != nil && d.dirty != nil {
				if p := m.pfn(f); p != guest.InvalidPFN {
					d.dirty.set(p)
				}
			}
		}
	})
	if err != nil {
		return fmt.Errorf("machine: read the dirty log: %w", err)
	}
	return nil
}

// SetLogDirty begins or ends the log of a domain's writes. Beginning one that is on is refused.
func (m *Machine) SetLogDirty(id guest.DomID, on bool) error {
	const op = "log dirty"
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	if on {
		// What was written before belongs to the other domains' logs only.
		if err := m.gather(); err != nil {
			return err
		}
		if m.log.kernel != nil {
			if err := m.log.kernel.begin(); err != nil {
				return fmt.Errorf("machine: begin a dirty log: %w", err)
			}
		}
	}
	return m.with(op, id, func(d *domain) error {
		switch {
		case d.dying:
			return refuse(unix.EINVAL, "it is dying")
		case on && d.dirty != nil:
			return refuse(unix.EINVAL, "the log is on already")
		case on:
			d.dirty = newDirtySet()
		default:
			d.dirty = nil
		}
		return nil
	})
}

// maxDirty bounds how many frames one read of the log may ask for: 2 TiB of guest.
const maxDirty = 1 << 29

// Dirty sets b to those of frames 0 to frames-1 that were written since the log began or was last cleaned, and
// returns how many there are. With clean the log starts anew. With final, which needs a domain that does not run,
// frames of an HVM domain that somebody has mapped writably count as written.
func (m *Machine) Dirty(id guest.DomID, frames uint64, b guest.Bitmap, clean, final bool) (count uint64, err error) {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	if err := m.gather(); err != nil {
		return 0, err
	}
	err = m.with("read dirty log of", id, func(d *domain) error {
		switch {
		case d.dirty == nil:
			return refuse(unix.EINVAL, "the log is off")
		case frames > maxDirty || uint64(len(b))*64 < frames:
			return refuse(unix.EINVAL, "%d frames are too many", frames)
		case final && d.pauses == 0 && !d.shutdown:
			return refuse(unix.EINVAL, "it still runs, so this cannot be the last read")
		}
		if final && !d.pv() {
			d.markHeld()
		}
		count = d.dirty.read(b, frames)
		if clean {
			d.dirty.reset()
		}
		return nil
	})
	return count, err
}

// markHeld counts what clients have mapped writably as dirty.
func (d *domain) markHeld() {
	for _, h := range d.m.holds {
		if h.d != d {
			continue
		}
		for _, f := range h.frames {
			d.dirty.set(d.m.pfn(f))
		}
	}
}
