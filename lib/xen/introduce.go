package xen

import (
	"context"
	"fmt"
	"strconv"

	"xenferry/lib/guest"
	"xenferry/lib/xenstore"
)

// node is one entry of xenstore to be written for a domain: beside domain 0 the domain may read it, or own it.
type node struct {
	path, value string
	owned       bool
}

// announce writes what xenstore has of every domain. Without a xenstored there is nobody to read it.
func (h *Host) announce(ctx context.Context, id guest.DomID, spec guest.Spec) error {
	c, err := h.xenstore(ctx)
	if err != nil {
		h.log.Warn().Err(err).Msgf("domain %d has no name and no console", id)
		return nil
	}
	name := spec.Name
	if name == "" {
		name = "domain-" + strconv.Itoa(int(id))
	}
	vm := vmPath(spec.UUID)
	base := domainPath(id)
	err = write(ctx, c, id, []node{
		{vm, "", false}, {vm + "/uuid", spec.UUID.String(), false}, {vm + "/name", name, false},
		{base, "", false}, {base + "/vm", vm, false}, {base + "/name", name, false},
		{base + "/domid", strconv.Itoa(int(id)), false},
		{base + "/control", "", false}, {base + "/control/shutdown", "", true},
		{base + "/control/feature-poweroff", "", true}, {base + "/control/feature-reboot", "", true},
		{base + "/control/feature-suspend", "", true}, {base + "/control/sysrq", "", true},
		{base + "/control/platform-feature-multiprocessor-suspend", "1", false},
		{base + "/control/platform-feature-xs_reset_watches", "1", false},
		{base + "/device", "", false}, {base + "/error", "", true}, {base + "/attr", "", true},
		{base + "/drivers", "", true}, {base + "/feature", "", true}, {base + "/data", "", true},
		{base + "/cpu", "", false}, {base + "/memory", "", false},
		{libxlPath(id), "", false}, {libxlPath(id) + "/type", libxlType(spec.Kind), false}, // so that xl knows what it is
		{libxlPath(id) + "/" + ourMark, "", false},
		{base + "/memory/static-max", strconv.FormatUint(spec.MaxPages*(guest.PageSize/1024), 10), false},
		{base + "/memory/target", strconv.FormatUint(target(spec)*(guest.PageSize/1024), 10), false},
	})
	if err != nil {
		return fmt.Errorf("announce domain %d in xenstore: %w", id, err)
	}
	return nil
}

// target is how many pages the guest's balloon shall leave it: all that it may own, unless it had given some up.
func target(spec guest.Spec) uint64 {
	const slack = 256 // that libxl lets any domain own beyond its memory
	if spec.Needs()+slack >= spec.MaxPages {
		return spec.MaxPages
	}
	return spec.Needs()
}

// ourMark is the node among libxl's of a domain that says that libxl did not make it.
const ourMark = "xenferry"

// libxlPath is where libxl keeps what it knows of a domain.
func libxlPath(id guest.DomID) string { return "/libxl/" + strconv.Itoa(int(id)) }

// libxlType is the kind as libxl writes it.
func libxlType(k guest.Kind) string {
	if k.PV() {
		return "pv"
	}
	return k.String()
}

// write writes nodes, all or none.
func write(ctx context.Context, c *xenstore.Conn, id guest.DomID, nodes []node) error {
	return c.Transaction(ctx, func(tx *xenstore.Tx) error {
		for _, n := range nodes {
			if err := tx.Write(ctx, n.path, n.value); err != nil {
				return err
			}
			perms := []string{"n0", "r" + strconv.Itoa(int(id))}
			if n.owned {
				perms = []string{"n" + strconv.Itoa(int(id))}
			}
			if err := tx.SetPerms(ctx, n.path, perms); err != nil {
				return err
			}
		}
		return nil
	})
}

// consoleLimit is how much of its output xenconsoled keeps of a console that nobody reads, in octets.
const consoleLimit = 1 << 20

// Introduce makes a domain that Create made known to xenstored and xenconsoled, once its memory holds the rings over
// which it speaks to them. A ring that is 0 or guest.InvalidGFN is left out.
func (h *Host) Introduce(ctx context.Context, id guest.DomID, rings guest.Rings) error {
	if err := h.Reserve(ctx, id, 0); err != nil {
		return err
	}
	h.mu.Lock()
	p := h.ports[id]
	h.mu.Unlock()
	c, err := h.xenstore(ctx)
	if err != nil {
		return fmt.Errorf("introduce domain %d: %w", id, err)
	}
	there := func(g guest.GFN) bool { return g != 0 && g != guest.InvalidGFN }
	ring := func(g guest.GFN) string { return strconv.FormatUint(uint64(g), 10) }
	port := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	base := domainPath(id)
	var nodes []node
	if there(rings.Store) {
		nodes = append(nodes, node{base + "/store", "", false},
			node{base + "/store/port", port(p.store), false}, node{base + "/store/ring-ref", ring(rings.Store), false})
	}
	if there(rings.Console) {
		nodes = append(nodes, node{base + "/console", "", false}, node{base + "/console/backend-id", "0", false},
			node{base + "/console/type", "xenconsoled", false}, node{base + "/console/output", "pty", false},
			node{base + "/console/tty", "", false}, node{base + "/console/limit", strconv.Itoa(consoleLimit), false},
			node{base + "/console/port", port(p.console), false}, node{base + "/console/ring-ref", ring(rings.Console), false})
	}
	if err := write(ctx, c, id, nodes); err != nil {
		return fmt.Errorf("introduce domain %d: %w", id, err)
	}
	if !there(rings.Store) {
		return nil
	}
	if err := c.Introduce(ctx, id, rings.Store, p.store); err != nil {
		return fmt.Errorf("introduce domain %d: %w", id, err)
	}
	return nil
}
