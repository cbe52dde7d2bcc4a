package xen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"xenferry/lib/guest"
	"xenferry/lib/xenstore"
)

// Rename gives a domain another name, as libxl does: in xenstore, at the domain and at its UUID. Names are unique; that
// another domain has it already matches fs.ErrExist.
func (h *Host) Rename(ctx context.Context, id guest.DomID, name string) error {
	i, err := h.info(id)
	if err != nil {
		return err
	}
	c, err := h.xenstore(ctx)
	if err != nil {
		return err
	}
	return c.Transaction(ctx, func(tx *xenstore.Tx) error {
		all, err := tx.Directory(ctx, "/local/domain")
		if err != nil {
			return err
		}
		for _, n := range all {
			taken, err := tx.Read(ctx, "/local/domain/"+n+"/name")
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if taken == name && n != strconv.Itoa(int(id)) {
				return fmt.Errorf("domain %s is called %s: %w", n, name, fs.ErrExist)
			}
		}
		return errors.Join(tx.Write(ctx, domainPath(id)+"/name", name), tx.Write(ctx, vmPath(i.UUID)+"/name", name))
	})
}
