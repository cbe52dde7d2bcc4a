// Package migrate is the sender and the receiver of a whole domain as xl saves and migrates it: xl's header with the
// configuration, the libxl stream, in it the libxc stream, which xc-save and xc-restore write and read as helpers on the
// same descriptor, and the emulator's state. It owns the domain on its side, as libxl does, and keeps a guardian told.
package migrate

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/rs/zerolog"

	"xenferry/lib/emulator"
	"xenferry/lib/guard"
	"xenferry/lib/guest"
	"xenferry/lib/host"
)

// Guardian is told what there is to undo.
type Guardian interface{ Tell(guard.State) error }

// Side is what sender and receiver have in common.
type Side struct {
	Host  host.Host
	Spec  string // of the host, as --host has it
	Guard Guardian
	Log   zerolog.Logger

	Folder string // of journals; none for a side that keeps none
	Lock   string // what a journal says of this process and its guardian: see Record.Lock
	// DomainLock is the lock of the domain that the caller saves or sends; nil for a side that has none.
	DomainLock *host.Lock
	Patience   time.Duration // how long the other side may take to answer; 0 is for ever

	journal *Journal
}

// Resume lets a domain run on that was suspended, its devices first.
func Resume(ctx context.Context, h host.Host, d guest.Info) error {
	at("resume")
	defer at("resumed")
	return emulator.Resume(ctx, h, d)
}

// Unpause lets a new domain run, its devices first.
func Unpause(ctx context.Context, h host.Host, d guest.Info) error {
	at("unpause")
	defer at("unpaused")
	if e := emulator.Open(h, d); e != nil {
		if err := e.Cont(ctx); err != nil {
			return err
		}
	}
	return h.Unpause(ctx, d.ID)
}

// Undo is what a guardian of this package's side does: emulator.Undo. What the journal has last outweighs what the guardian
// was told, so that the two never part.
func Undo(ctx context.Context, h host.Host, log zerolog.Logger, s guard.State) error {
	r, ok, err := lastRecord(s.Journal)
	switch {
	case err != nil: // whose the domain is cannot be known
		return fmt.Errorf("its process was killed; domain %d is left as it is: %w", s.Domain, err)
	case !ok:
		return emulator.Undo(ctx, h, log, s)
	}
	switch r.Step {
	case Given, Held:
		log.Info().Msgf("its process was killed; domain %v is %s, and waits for xl-stream recover", r.UUID, r.Step)
		return nil
	case Owned:
		s = guard.State{Domain: s.Domain, UUID: s.UUID, Unpause: !r.Paused}
	case Returned:
		s = guard.State{Domain: s.Domain, UUID: s.UUID, Existing: r.Existing, Destroy: true}
	}
	err = emulator.Undo(ctx, h, log, s)
	if err == nil && r.Step == Sending {
		err = endSending(ctx, h, s.Journal, r)
	}
	return err
}

// endSending ends the journal of a sender that was killed, once its domain runs on: what somebody else does with the domain later
// is not for recover to undo. A journal that somebody has open, or of a domain that is gone, is left to recover.
func endSending(ctx context.Context, h host.Host, name string, r Record) error {
	d, err := h.Info(ctx, r.Domain)
	if err != nil || d.UUID != r.UUID || d.Dying {
		return nil
	}
	f, err := openLocked(ctx, name, os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	if now, ok, err := lastRecord(name); err != nil || !ok || now.ID != r.ID || now.Step != Sending {
		return err
	}
	if err := (&Side{Host: h}).runHere(ctx, r, &d, true); err != nil {
		return err
	}
	return os.Remove(name)
}

// renamer is a host that can give a domain another name.
type renamer interface {
	Rename(ctx context.Context, id guest.DomID, name string) error
}

// rename gives a domain another name, where the host can. Elsewhere it keeps its own all the time.
func (s *Side) rename(ctx context.Context, id guest.DomID, name string) error {
	r, ok := s.Host.(renamer)
	if !ok {
		return nil
	}
	at("rename")
	if err := r.Rename(ctx, id, name); err != nil {
		return fmt.Errorf("rename domain %d to %s: %w", id, name, err)
	}
	at("renamed")
	return nil
}

// destroy ends a domain.
func (s *Side) destroy(ctx context.Context, id guest.DomID) error {
	at("destroy")
	defer at("destroyed")
	return s.Host.Destroy(ctx, id)
}

// tell tells the guardian.
func (s *Side) tell(st guard.State) error {
	if s.journal != nil {
		st.Journal = s.journal.file.Name()
	}
	at("tell the guardian")
	defer at("told the guardian")
	return s.Guard.Tell(st)
}
