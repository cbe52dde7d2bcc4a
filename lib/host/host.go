// Package host opens the hypervisor that a command works on: Xen where the machine is a control domain, else the
// simulated one.
package host

import (
	"context"

	"xenferry/lib/guest"
	"xenferry/lib/x86"
)

// Host is a hypervisor with as much of a toolstack as saving and restoring without one takes.
type Host interface {
	x86.Host

	// Domains lists all domains.
	Domains(ctx context.Context) ([]guest.Info, error)

	// Create makes a domain, paused and without memory.
	Create(ctx context.Context, spec guest.Spec) (guest.DomID, error)

	// Destroy ends a domain, whatever state it is in.
	Destroy(ctx context.Context, id guest.DomID) error

	// Pause and Unpause stop and start a domain's vCPUs. Pauses count on Xen; ours are made and undone in pairs.
	Pause(ctx context.Context, id guest.DomID) error
	Unpause(ctx context.Context, id guest.DomID) error

	// Suspend asks the guest to suspend itself and returns once it has, or with an error when ctx ends first; then the
	// request is withdrawn and the guest will not suspend any more, but may have done so all the same: ask Info.
	Suspend(ctx context.Context, id guest.DomID) error

	// Resume lets a suspended domain run on as if the suspend had been cancelled (fast, cooperative resume).
	Resume(ctx context.Context, id guest.DomID) error

	// Close lets go of the host. Domains stay as they are.
	Close() error
}

// Judge is a Host that can tell beforehand what saving a domain would founder on.
type Judge interface {
	// Saveable is why domain id cannot be saved, or nil.
	Saveable(ctx context.Context, id guest.DomID) error
}

// Reserver is a Host that can set memory aside for a domain that is to be loaded, so that two do not both begin with what is enough
// for one.
type Reserver interface {
	// Reserve sees to it that the domain can come to own so many pages, and is refused where they are not free; 0 gives back
	// what it has not taken of them.
	Reserve(ctx context.Context, id guest.DomID, pages uint64) error
}

// Introducer is a Host whose domains speak to a xenstored and have a console: a domain that Create made is made known to
// both once its memory holds the rings.
type Introducer interface {
	Introduce(ctx context.Context, id guest.DomID, rings guest.Rings) error
}
