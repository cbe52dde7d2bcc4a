// Package direct saves and restores domains without a toolstack above: it knows who owns the domain at each moment, keeps
// a guardian told, and undoes what failed.
package direct

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"xenferry/lib/cli"
	"xenferry/lib/guest"
	"xenferry/lib/host"
)

// FindLocked is Find, with the domain's lock taken: the result is how the domain is from then on.
func FindLocked(ctx context.Context, h host.Host, word string, log zerolog.Logger) (guest.Info, *host.Lock, error) {
	d, err := Find(ctx, h, word)
	if err != nil {
		return d, nil, err
	}
	lock, err := host.LockDomain(ctx, h, d.ID, log)
	if err != nil {
		return d, nil, err
	}
	if d, err = h.Info(ctx, d.ID); err != nil { // who had the lock may have changed it
		lock.Release()
		return d, nil, err
	}
	return d, lock, nil
}

// Find returns the domain that word names: by number, name or UUID. An empty word, such as a variable that nobody set, names none.
func Find(ctx context.Context, h host.Host, word string) (guest.Info, error) {
	if word == "" { // every domain without a name has it
		return guest.Info{}, cli.Usagef("DOMAIN is empty")
	}
	if n, err := strconv.ParseUint(word, 10, 16); err == nil {
		return h.Info(ctx, guest.DomID(n))
	}
	all, err := h.Domains(ctx)
	if err != nil {
		return guest.Info{}, err
	}
	id, uuidErr := uuid.Parse(word)
	var found []guest.Info
	for _, d := range all {
		if d.Name == word || uuidErr == nil && d.UUID == id {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return guest.Info{}, fmt.Errorf("no domain has the name or UUID %q", word)
	case 1:
		return found[0], nil
	}
	var ids []string
	for _, d := range found {
		ids = append(ids, strconv.Itoa(int(d.ID)))
	}
	return guest.Info{}, fmt.Errorf("%q means several domains (%s): name one by its number", word, strings.Join(ids, ", "))
}

// SpecOf is what it takes to make a domain like d.
func SpecOf(d guest.Info) guest.Spec {
	return guest.Spec{Name: d.Name, UUID: d.UUID, Kind: d.Kind, VCPUs: d.MaxVCPU + 1, MaxPages: d.MaxPages, Pages: d.TotPages}
}
