package guestos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"xenferry/lib/guest"
	"xenferry/lib/sim"
	"xenferry/lib/sim/machine"
)

// Software is the guests of a server, and what a client can ask of them.
type Software struct{}

var (
	_ sim.Software = Software{}
	_ sim.Guest    = (*Kernel)(nil)
	_ sim.Guest    = (*Passive)(nil)
	_ Hypervisor   = (*machine.View)(nil)
)

// The operations of Software, as sim.Client.Call names them.
const (
	OpBuild   = "guest-build"   // BuildRequest -> BuildAnswer
	OpCheck   = "guest-check"   // CheckRequest -> Report
	OpDump    = "guest-dump"    // DomainRequest -> Picture
	OpSuspend = "guest-suspend" // DomainRequest; unlike the host's own, of a domain that never ran here too
)

// BuildRequest asks for a new domain with a guest in it.
type BuildRequest struct {
	Name    string    `json:"name"`
	UUID    uuid.UUID `json:"uuid"` // the zero one is for the host to choose
	Options Options   `json:"options"`
	Paused  bool      `json:"paused"`
	Witness string    `json:"witness"` // the file that each suspend writes a Witness to, absolute; none if empty
}

// BuildAnswer is the domain that was made.
type BuildAnswer struct {
	ID   guest.DomID `json:"domid"`
	Spec guest.Spec  `json:"spec"`
}

// DomainRequest names a domain.
type DomainRequest struct {
	ID guest.DomID `json:"domid"`
}

// CheckRequest asks a guest for its proof.
type CheckRequest struct {
	ID      guest.DomID `json:"domid"`
	Witness string      `json:"witness"` // a file to compare with, absolute; none if empty
	AnyCPU  bool        `json:"any_cpu"` // the processor may be another one: a version 2 stream does not carry its policy
}

// Attach finds the guest of a domain that is about to run for the first time on this host: one of ours goes on with
// its suspend hypercall, which returns what vCPU 0's rax says.
func (Software) Attach(v *machine.View) (sim.Guest, error) {
	k, err := Attach(v)
	if errors.Is(err, ErrPassive) {
		return NewPassive(v), nil
	}
	if err != nil {
		return nil, err
	}
	k.Resumed(answered(v))
	if err := k.Err(); err != nil {
		return nil, err
	}
	return k, nil
}

// answered reports whether vCPU 0's suspend hypercall was told that it is cancelled.
func answered(hv Hypervisor) bool {
	c, err := hv.VCPUContext(0)
	kind := hv.Spec().Kind
	return err == nil && word(c[contextOf(kind).rax:], kind.Width()) == 1
}

// Call is one operation.
func (Software) Call(ctx context.Context, s *sim.Server, op string, req json.RawMessage) (any, error) {
	switch op {
	case OpBuild:
		return with(req, func(r *BuildRequest) (any, error) { return buildDomain(s, r) })
	case OpCheck:
		return with(req, func(r *CheckRequest) (any, error) { return checkDomain(s, r) })
	case OpDump:
		return with(req, func(r *DomainRequest) (any, error) { return dumpDomain(s, r.ID) })
	case OpSuspend:
		return with(req, func(r *DomainRequest) (any, error) { return nil, suspendDomain(ctx, s, r.ID) })
	}
	return nil, fmt.Errorf("guests know no operation %q", op)
}

// with decodes a request for f.
func with[R any](req json.RawMessage, f func(*R) (any, error)) (any, error) {
	r := new(R)
	if err := json.Unmarshal(req, r); err != nil {
		return nil, err
	}
	return f(r)
}

func buildDomain(s *sim.Server, r *BuildRequest) (_ *BuildAnswer, err error) {
	if err := r.Options.normalize(); err != nil {
		return nil, err
	}
	id, err := s.Create(guest.Spec{Name: r.Name, UUID: r.UUID, Kind: r.Options.Kind, VCPUs: r.Options.VCPUs, MaxPages: r.Options.MaxPages()})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Destroy(id))
		}
	}()
	v, err := s.View(id)
	if err != nil {
		return nil, err
	}
	k, err := Build(v, r.Options)
	if err != nil {
		return nil, err
	}
	var g sim.Guest = k
	if r.Witness != "" {
		g = &witnessed{k, r.Witness}
	}
	if err := s.SetGuest(id, g); err != nil {
		return nil, err
	}
	if !r.Paused {
		if err := s.Unpause(id); err != nil {
			return nil, err
		}
	}
	return &BuildAnswer{ID: id, Spec: v.Spec()}, nil
}

// witnessed is a guest that leaves a witness whenever it suspends.
type witnessed struct {
	*Kernel
	file string
}

// Suspend writes the witness once the guest has suspended; a guest without one runs on.
func (g *witnessed) Suspend(ctx context.Context) error {
	if err := g.Kernel.Suspend(ctx); err != nil {
		return err
	}
	err := g.Kernel.Witness().WriteFile(g.file)
	if err != nil {
		g.Resumed(true)
		g.Start()
	}
	return err
}

// inspect runs f on a domain's guest while that does not run; k is nil if it is not one of ours.
func inspect(s *sim.Server, id guest.DomID, f func(v *machine.View, k *Kernel) error) error {
	v, err := s.View(id)
	if err != nil {
		return err
	}
	return s.Halted(id, func(g sim.Guest) error {
		switch g := g.(type) {
		case *Kernel:
			return f(v, g)
		case *witnessed:
			return f(v, g.Kernel)
		case *Passive:
			return f(v, nil)
		}
		k, err := Attach(v)
		if err != nil && !errors.Is(err, ErrPassive) {
			return err
		}
		return f(v, k)
	})
}

func checkDomain(s *sim.Server, r *CheckRequest) (report *Report, err error) {
	var w *Witness
	if r.Witness != "" {
		if w, err = ReadWitness(r.Witness); err != nil {
			return nil, err
		}
	}
	err = inspect(s, r.ID, func(v *machine.View, k *Kernel) error {
		if k == nil {
			_, err := Attach(v) // once more, for the reason
			return fmt.Errorf("check domain %d: %w", r.ID, err)
		}
		k.anyCPU = r.AnyCPU
		if w != nil {
			report = k.CheckAgainst(w)
		} else {
			report = k.Check()
		}
		return nil
	})
	return report, err
}

func dumpDomain(s *sim.Server, id guest.DomID) (p *Picture, err error) {
	err = inspect(s, id, func(v *machine.View, k *Kernel) error {
		p, err = Dump(v, k)
		return err
	})
	return p, err
}

// suspendDomain asks a domain's guest to suspend. One that was restored and never ran is suspended as it is, for who
// wants to see that it can be saved again without a difference.
func suspendDomain(ctx context.Context, s *sim.Server, id guest.DomID) error {
	info, err := s.Info(id)
	if err != nil {
		return err
	}
	if info.EverUnpaused {
		return s.Suspend(ctx, id)
	}
	return inspect(s, id, func(v *machine.View, k *Kernel) error {
		var g sim.Guest = NewPassive(v)
		if k != nil {
			g = k
		}
		if err := g.Suspend(ctx); err != nil {
			return err
		}
		return s.Machine().Shutdown(id, guest.ShutdownSuspend)
	})
}
