package xen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// Flags of xen_domctl_getdomaininfo (XEN_DOMINF_*). The shutdown reason is bits 16 to 23.
const (
	infoDying    = 1 << 0
	infoHVM      = 1 << 1
	infoShutdown = 1 << 2
	infoPaused   = 1 << 3

	infoReason = 16
)

// Emulated devices (XEN_X86_EMU_*).
const (
	emulatedLAPIC   = 1 << 0
	emulatedIOAPIC  = 1 << 4
	emulatedUsePIRQ = 1 << 9
	emulatedVPCI    = 1 << 10

	emulationPVH = emulatedLAPIC
	emulationHVM = 1<<10 - 1 // all but VPCI
)

// Info tells about one domain. Xen does not tell whether a domain ever ran: EverUnpaused is whether it used processor
// time. Nor does it tell whether a log of dirty pages is on: LogDirty is whether this process began one. The event
// channels are those made by Create here, or what a toolstack wrote into xenstore; 0 if neither is.
func (h *Host) Info(ctx context.Context, id guest.DomID) (guest.Info, error) {
	i, err := h.info(id)
	if err != nil {
		return guest.Info{}, err
	}
	return i, h.describe(ctx, &i)
}

// describe adds what only xenstore knows. Without a xenstored, domains have no names.
func (h *Host) describe(ctx context.Context, i *guest.Info) error {
	h.mu.Lock()
	p := h.ports[i.ID]
	h.mu.Unlock()
	c, err := h.xenstore(ctx)
	if err != nil {
		h.log.Debug().Err(err).Msg("no xenstore: domains have no names")
		i.StoreEvtchn, i.ConsoleEvtchn = p.store, p.console
		return nil
	}
	read := func(node string) (string, error) {
		s, err := c.Read(ctx, domainPath(i.ID)+node)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return s, err
	}
	if i.Name, err = read("/name"); err != nil {
		return err
	}
	for _, port := range []struct {
		node string
		made uint32
		to   *uint32
	}{{"/store/port", p.store, &i.StoreEvtchn}, {"/console/port", p.console, &i.ConsoleEvtchn}} {
		if *port.to = port.made; port.made != 0 {
			continue
		}
		s, err := read(port.node)
		if err != nil {
			return err
		}
		n, _ := strconv.ParseUint(s, 10, 32)
		*port.to = uint32(n)
	}
	return nil
}

// domainPath is where xenstore has a domain.
func domainPath(id guest.DomID) string { return "/local/domain/" + strconv.Itoa(int(id)) }

// info tells what Xen knows of a domain.
func (h *Host) info(id guest.DomID) (guest.Info, error) {
	d, err := h.domctl(getDomainInfo, id, 0)
	if err != nil {
		return guest.Info{}, err
	}
	defer d.free()
	if err := d.call(); err != nil {
		return guest.Info{}, err
	}
	if guest.DomID(le.Uint16(d.u)) != id { // up to 4.17 Xen tells of the next one instead
		return guest.Info{}, fail(getDomainInfo.String(), id, unix.ESRCH)
	}
	return h.decodeInfo(d.u)
}

// decodeInfo reads xen_domctl_getdomaininfo and asks for a PV domain's word size.
func (h *Host) decodeInfo(u []byte) (guest.Info, error) {
	i := h.l.info(u)
	h.mu.Lock()
	i.LogDirty = h.logging[i.ID]
	h.mu.Unlock()
	if i.Kind != guest.PV64 || i.Dying || i.ID == 0 {
		return i, nil
	}
	bits, err := h.AddressSize(context.Background(), i.ID)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && bits == 64:
	case err != nil:
		return i, err
	case bits == 32:
		i.Kind = guest.PV32
	default:
		return i, fmt.Errorf("domain %d has words of %d bits", i.ID, bits)
	}
	return i, nil
}

// info reads xen_domctl_getdomaininfo; a PV domain is PV64 until its word size is known.
func (l *layout) info(u []byte) guest.Info {
	flags := le.Uint32(u[4:])
	i := guest.Info{
		ID:           guest.DomID(le.Uint16(u)),
		Kind:         guest.PV64,
		Dying:        flags&infoDying != 0,
		Paused:       flags&infoPaused != 0,
		Shutdown:     flags&infoShutdown != 0,
		TotPages:     le.Uint64(u[8:]),
		MaxPages:     le.Uint64(u[16:]),
		SharedInfo:   guest.MFN(le.Uint64(u[48:])),
		EverUnpaused: le.Uint64(u[56:]) != 0,
		MaxVCPU:      le.Uint32(u[68:]),
		UUID:         uuid.UUID(u[76:92]),
	}
	if i.Shutdown {
		i.Reason = guest.ShutdownReason(flags >> infoReason)
	}
	if flags&infoHVM != 0 {
		i.Kind = guest.HVM
		if le.Uint32(u[l.infoEmulation:])&^(emulatedLAPIC|emulatedIOAPIC|emulatedUsePIRQ|emulatedVPCI) == 0 {
			i.Kind = guest.PVH
		}
	}
	return i
}

// domainList is at most most domains from number first on (XEN_SYSCTL_getdomaininfolist).
func (h *Host) domainList(first guest.DomID, most int) ([]guest.Info, error) {
	const (
		call = "XEN_SYSCTL_getdomaininfolist"
		cmd  = 6
	)
	size := most * h.l.infoSize
	a, err := h.memory.take(sysctlSize + size + 64)
	if err != nil {
		return nil, fail(call, noDomain, err)
	}
	defer a.free()
	op, list := a.get(sysctlSize), a.get(size)
	le.PutUint32(op, cmd)
	le.PutUint32(op[4:], h.sysctl)
	u := op[sysctlHeader:]
	le.PutUint16(u, uint16(first))
	le.PutUint32(u[4:], uint32(most))
	le.PutUint64(u[8:], address(list))
	if _, err := h.dev.call(callSysctl, address(op)); err != nil {
		return nil, fail(call, noDomain, err)
	}
	var all []guest.Info
	for n := range min(int(le.Uint32(u[16:])), most) {
		i, err := h.decodeInfo(list[n*h.l.infoSize:][:h.l.infoSize])
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

// Domains lists all domains in order of their numbers.
func (h *Host) Domains(ctx context.Context) ([]guest.Info, error) {
	const batch = 256
	var all []guest.Info
	for first := guest.DomID(0); ; {
		part, err := h.domainList(first, batch)
		if err != nil {
			return nil, err
		}
		for i := range part {
			if err := h.describe(ctx, &part[i]); err != nil {
				return nil, err
			}
		}
		all = append(all, part...)
		if len(part) < batch {
			return all, nil
		}
		first = part[batch-1].ID + 1
	}
}

// Pause stops a domain's vCPUs.
func (h *Host) Pause(_ context.Context, id guest.DomID) error { return h.order(pauseDomain, id, nil) }

// Unpause takes one pause away.
func (h *Host) Unpause(_ context.Context, id guest.DomID) error {
	if err := h.kept.drop(id); err != nil {
		return err
	}
	return h.order(unpauseDomain, id, nil)
}

func vmPath(id uuid.UUID) string { return "/vm/" + id.String() }
