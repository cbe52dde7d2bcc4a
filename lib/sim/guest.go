package sim

import (
	"context"
	"encoding/json"

	"xenferry/lib/sim/machine"
)

// Guest is the software that runs in one domain; package guestos has it. The server calls these methods one at a time
// for a domain, without any lock of the machine held, so that a guest may use its machine.View in all of them.
type Guest interface {
	// Start lets the guest run. It is called when nothing holds the domain back any more: no pause, no shutdown.
	Start()

	// Stop halts the guest wherever it is. Once it has returned, no write of the guest happens until Start.
	// Stopping a guest that does not run is harmless.
	Stop()

	// Suspend asks a running guest to bring itself into the form in which it is saved, as a kernel does before it calls
	// SCHEDOP_shutdown. With nil the guest has stopped itself, and the server marks the domain shut down for suspend.
	// With an error, as when ctx ends first, it runs on as before.
	Suspend(ctx context.Context) error

	// Resumed tells a suspended guest that its domain runs again, before Start. cancelled is what the guest's suspend
	// hypercall returned in vCPU 0's rax: true if the guest is still where it was, false if it must set itself up anew.
	Resumed(cancelled bool)
}

// Software is what can run in the domains of a server, and the operations that come with it. The program that serves
// hands it in, so that neither the server nor its protocol knows any guest.
type Software interface {
	// Attach finds the guest in the memory and vCPU state of a domain that is about to run for the first time on this
	// host: built here by an operation that did not call Server.SetGuest, or restored. The view is a guestos.Hypervisor.
	// An error refuses the unpause.
	Attach(v *machine.View) (Guest, error)

	// Call is one operation beside the host's own, such as building a guest or checking one. req and the answer are
	// JSON that only this Software and the caller of Client.Call understand. Of the server it uses Create, Destroy,
	// Info, View, Guest, SetGuest, Pause, Unpause and Halted. ctx ends when the client goes away or gives up.
	Call(ctx context.Context, s *Server, op string, req json.RawMessage) (any, error)
}
