package host

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"xenferry/lib/guest"
)

// Alone is the error that another domain than id has the UUID and runs on h, so that letting id run would have the same guest
// there twice. One that has shut down does not run, as the source of a move within a host, which is suspended; nor does one
// that is paused and never ran.
func Alone(ctx context.Context, h Host, id guest.DomID, of uuid.UUID) error {
	all, err := h.Domains(ctx)
	if err != nil || of == uuid.Nil {
		return err
	}
	for _, d := range all {
		if d.UUID == of && d.ID != id && !d.Dying && !d.Shutdown && (!d.Paused || d.EverUnpaused) {
			return fmt.Errorf("domain %d, %s, has the same UUID and runs: if you want both, have this one --paused, and unpause it", d.ID, d.Name)
		}
	}
	return nil
}
