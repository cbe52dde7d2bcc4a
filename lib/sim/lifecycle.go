package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/sim/machine"
)

// life is the guest of one domain, and whether it runs. mu is held while the guest is started, stopped or asked
// anything, and never taken with a lock of the machine held.
type life struct {
	mu      sync.Mutex
	guest   Guest // nil until the domain first runs, and for good without Software
	running bool

	abort atomic.Pointer[context.CancelFunc] // ends a suspend that is waited for; taken without mu
}

// life is the life of domain id, which must be there for op, locked.
func (s *Server) life(op string, id guest.DomID) (*life, error) {
	for {
		s.mu.Lock()
		l := s.lives[id]
		if l == nil {
			l = new(life)
			s.lives[id] = l
		}
		s.mu.Unlock()

		l.mu.Lock()
		s.mu.Lock()
		same := s.lives[id] == l
		s.mu.Unlock()
		if !same { // destroyed meanwhile
			l.mu.Unlock()
			continue
		}
		if _, err := s.m.Info(id); err != nil {
			s.forget(id)
			l.mu.Unlock()
			return nil, &machine.Error{Op: op, Domain: id, Errno: unix.ESRCH, Absent: true}
		}
		return l, nil
	}
}

func (s *Server) forget(id guest.DomID) {
	s.mu.Lock()
	delete(s.lives, id)
	s.mu.Unlock()
}

// settle starts or stops a guest so that it runs exactly if its domain may. l is locked.
func (s *Server) settle(id guest.DomID, l *life) {
	may := l.guest != nil && s.m.Runnable(id)
	switch {
	case may && !l.running:
		l.running = true
		l.guest.Start()
	case !may && l.running:
		l.stop()
	}
}

func (l *life) stop() {
	if l.running {
		l.guest.Stop()
		l.running = false
	}
}

// Create makes a domain, paused and without memory.
func (s *Server) Create(spec guest.Spec) (guest.DomID, error) {
	id, err := s.m.Create(spec)
	if err == nil {
		err = s.startDevices(id)
	}
	if err == nil {
		s.log.Debug().Uint16("domain", uint16(id)).Str("name", spec.Name).Stringer("kind", spec.Kind).Msg("created")
	}
	return id, err
}

// Destroy ends a domain, whatever state it is in.
func (s *Server) Destroy(id guest.DomID) error {
	s.mu.Lock()
	l := s.lives[id]
	s.mu.Unlock()
	if l != nil {
		if abort := l.abort.Load(); abort != nil {
			(*abort)()
		}
	}
	l, err := s.life("destroy", id)
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	l.stop()
	s.forget(id)
	s.endDevicesOf(id)
	s.log.Debug().Uint16("domain", uint16(id)).Msg("destroyed")
	return s.m.Destroy(id)
}

// Info tells about one domain.
func (s *Server) Info(id guest.DomID) (guest.Info, error) { return s.m.Info(id) }

// View is a domain as its guest sees the hypervisor.
func (s *Server) View(id guest.DomID) (*machine.View, error) { return s.m.View(id) }

// Machine is the hypervisor under the server. Who changes a domain through it past the server must keep it halted.
func (s *Server) Machine() *machine.Machine { return s.m }

// Guest is the guest of a domain, nil if it has none yet.
func (s *Server) Guest(id guest.DomID) (Guest, error) {
	l, err := s.life("guest of", id)
	if err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	return l.guest, nil
}

// SetGuest gives a domain that never ran its guest, in place of what Software.Attach would find.
func (s *Server) SetGuest(id guest.DomID, g Guest) error {
	l, err := s.life("set guest of", id)
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	if l.guest != nil {
		return fmt.Errorf("domain %d has a guest already", id)
	}
	l.guest = g
	s.settle(id, l)
	return nil
}

// Pause stops a domain's vCPUs; when it returns its guest has stopped writing.
func (s *Server) Pause(id guest.DomID) error {
	l, err := s.life("pause", id)
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	if err := s.m.Pause(id); err != nil {
		return err
	}
	s.settle(id, l)
	return nil
}

// Unpause takes one pause away. Before a domain first runs, its guest is found in its memory.
func (s *Server) Unpause(id guest.DomID) error {
	l, err := s.life("unpause", id)
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	last, err := s.m.MayUnpause(id)
	if err != nil {
		return err
	}
	if last {
		if err := s.attach(id, l); err != nil {
			return err
		}
	}
	if err := s.m.Unpause(id); err != nil {
		return err
	}
	s.settle(id, l)
	return nil
}

func (s *Server) attach(id guest.DomID, l *life) error {
	if l.guest != nil || s.software == nil {
		return nil
	}
	v, err := s.m.View(id)
	if err != nil {
		return err
	}
	if l.guest, err = s.software.Attach(v); err != nil {
		return fmt.Errorf("unpause domain %d: find its guest: %w", id, err)
	}
	return nil
}

// Halted runs f while the guest of a domain, nil if it has none, does not run, and lets it run on afterwards.
func (s *Server) Halted(id guest.DomID, f func(Guest) error) error {
	l, err := s.life("halt", id)
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	l.stop()
	defer s.settle(id, l)
	return f(l.guest)
}

// Shutdown stops a domain for reason, without asking it (SCHEDOP_remote_shutdown).
func (s *Server) Shutdown(id guest.DomID, reason guest.ShutdownReason) error {
	l, err := s.life("shut down", id)
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	if err := s.m.Shutdown(id, reason); err != nil {
		return err
	}
	s.settle(id, l)
	return nil
}

// Suspend asks a running domain's guest to suspend, and returns once it has. A domain without a guest does so at once.
func (s *Server) Suspend(ctx context.Context, id guest.DomID) error {
	l, err := s.life("suspend", id)
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	if !s.m.Runnable(id) {
		return fmt.Errorf("suspend domain %d: it is not running", id)
	}
	if l.guest != nil {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		l.abort.Store(&cancel)
		defer l.abort.Store(nil)
		if err := l.guest.Suspend(ctx); err != nil {
			return fmt.Errorf("suspend domain %d: %w", id, err)
		}
		l.running = false
	}
	return s.m.Shutdown(id, guest.ShutdownSuspend)
}

// Resume lets a suspended domain run on as if the suspend had been cancelled.
func (s *Server) Resume(id guest.DomID) error {
	l, err := s.life("resume", id)
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	if err := s.m.Resume(id); err != nil {
		return err
	}
	if l.guest != nil {
		l.guest.Resumed(true)
	}
	s.settle(id, l)
	return nil
}

// halt stops all guests for good.
func (s *Server) halt() {
	s.mu.Lock()
	lives := s.lives
	s.lives = map[guest.DomID]*life{}
	s.mu.Unlock()
	for _, l := range lives {
		l.mu.Lock()
		l.stop()
		l.mu.Unlock()
	}
}

var errNoSoftware = errors.New("this server runs no guests of its own")
