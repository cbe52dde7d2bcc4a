package xen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/xenstore"
)

// Destroy ends a domain and removes what xenstore has of it. While somebody maps its frames it stays, dying.
//
// A domain that libxl made is destroyed by xl: its devices' backends, its emulator's process and libxl's files outlive
// the domain otherwise, and only libxl knows where they are.
func (h *Host) Destroy(ctx context.Context, id guest.DomID) error {
	if id == 0 {
		return errors.New("domain 0 is the host's own, and not destroyed")
	}
	i, err := h.info(id)
	if err != nil {
		return err
	}
	if err := h.kept.drop(id); err != nil {
		return err
	}
	c, err := h.xenstore(ctx)
	if err != nil { // then nobody knew of the domain but Xen
		return h.end(ctx, id)
	}
	if theirs, err := madeByLibxl(ctx, c, id); err != nil {
		return err
	} else if theirs {
		xl, err := exec.LookPath("xl")
		if err == nil {
			return h.destroyByXL(xl, id)
		}
		h.log.Warn().Err(err).Msgf("libxl made domain %d: what is left of its devices and emulator stays", id)
	}
	if err := h.end(ctx, id); err != nil {
		return err
	}
	return h.forget(ctx, c, i)
}

// madeByLibxl reports whether a domain is libxl's, which has nodes of each of its domains. So has announce, with one of its
// own among them.
func madeByLibxl(ctx context.Context, c *xenstore.Conn, id guest.DomID) (bool, error) {
	nodes, err := c.Directory(ctx, libxlPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && !slices.Contains(nodes, ourMark), err
}

// destroyByXL has xl destroy a domain. It is not interrupted: half of it is worse than none.
func (h *Host) destroyByXL(xl string, id guest.DomID) error {
	said, err := exec.Command(xl, "destroy", strconv.Itoa(int(id))).CombinedOutput()
	if err == nil {
		return nil
	}
	if i, e := h.info(id); errors.Is(e, fs.ErrNotExist) || e == nil && i.Dying {
		h.log.Warn().Msgf("domain %d is gone, but xl destroy says: %s", id, strings.TrimSpace(string(said)))
		return nil
	}
	return fmt.Errorf("xl destroy %d: %w: %s", id, err, strings.TrimSpace(string(said)))
}

// end takes a domain's life.
func (h *Host) end(ctx context.Context, id guest.DomID) error {
	var err error
	for { // Xen asks to be called again while there is more to take back
		if err = h.order(destroyDomain, id, nil); !errors.Is(err, unix.EAGAIN) {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if err != nil {
		return err
	}
	h.mu.Lock()
	delete(h.ports, id)
	delete(h.logging, id)
	h.mu.Unlock()
	return nil
}

// forget removes a domain from xenstore.
func (h *Host) forget(ctx context.Context, c *xenstore.Conn, i guest.Info) error {
	if err := c.Release(ctx, i.ID); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	all, err := h.Domains(ctx)
	if err != nil {
		return err
	}
	paths := []string{domainPath(i.ID), libxlPath(i.ID)}
	// A domain that moved within this host shares these with its new copy.
	if !slices.ContainsFunc(all, func(d guest.Info) bool { return d.UUID == i.UUID && !d.Dying }) {
		paths = append(paths, vmPath(i.UUID))
	}
	for _, path := range paths {
		if err := c.Remove(ctx, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
