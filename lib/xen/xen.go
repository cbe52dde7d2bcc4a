// Package xen drives a real Xen from its control domain: it makes the hypercalls itself, through Linux's privcmd device,
// and needs no library of Xen's. One program speaks the interfaces of all releases in its table of layouts, which it
// tells apart when it opens the host. It implements host.Host.
package xen

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/xenstore"
)

// Host is Xen as its control domain sees it. Its methods may be called concurrently.
type Host struct {
	dev     *device
	memory  arenas
	release guest.Release
	l       layout
	sysctl  uint32
	log     zerolog.Logger
	scratch sync.Pool // of *mapScratch
	kept    kept

	m2p struct {
		sync.Mutex
		mem   []byte
		table guest.M2P
	}
	store struct {
		sync.Mutex
		conn *xenstore.Conn
	}
	mu      sync.Mutex
	logging map[guest.DomID]bool  // domains whose log this process began
	ports   map[guest.DomID]ports // of domains that this process made
}

// ports are the event channels of a new domain that lead to the control domain.
type ports struct{ store, console uint32 }

// ErrUnknown is matched when the hypervisor's release speaks an interface that is not known here.
var ErrUnknown = errors.New("this release of Xen is not supported")

// Open opens the Xen under this control domain, and finds out what it speaks. It changes nothing there. This process has late timers
// from then on.
func Open(_ context.Context, log zerolog.Logger) (*Host, error) {
	dev, err := openDevice()
	if err != nil {
		return nil, fmt.Errorf("open Xen: %w (this takes root in Xen's control domain)", err)
	}
	h := &Host{dev: dev, memory: arenas{dev: dev}, log: log, logging: map[guest.DomID]bool{}, ports: map[guest.DomID]ports{}}
	h.kept = kept{most: maxKept, unmap: unview, of: map[guest.DomID][][]byte{}}
	h.scratch.New = func() any { return new(mapScratch) }
	if err := h.identify(); err != nil {
		_ = h.Close()
		return nil, fmt.Errorf("open Xen: %w", err)
	}
	relaxTimers()
	log.Debug().Stringer("release", h.release).Str("domctl", fmt.Sprintf("%#x", h.l.domctl)).
		Str("sysctl", fmt.Sprintf("%#x", h.sysctl)).Bool("hypercall-device", dev.buffers >= 0).Msg("Xen opened")
	return h, nil
}

// identify sets the release and the versions of the interfaces.
func (h *Host) identify() error {
	v, err := h.dev.call(callXenVersion, 0, 0)
	if err != nil {
		return fail("XENVER_version", noDomain, err)
	}
	h.release = guest.Release{Major: uint32(v) >> 16, Minor: uint32(v) & 0xFFFF}
	return speaks(h.release, func(l layout) error {
		h.l = l
		return h.order(getDomainInfo, 0, nil)
	}, func(version uint32) error {
		h.sysctl = version
		_, err := h.domainList(0, 1)
		return err
	})
}

// speaks tries the known versions of both interfaces until Xen answers: what is tried last of each is what it speaks. A request
// of a wrong version is refused with EACCES before Xen looks at it, so trying is harmless. Errors: ErrUnknown, or another refusal.
func speaks(r guest.Release, domctl func(layout) error, sysctl func(version uint32) error) error {
	for _, l := range layouts {
		err := domctl(l)
		if errors.Is(err, unix.EACCES) {
			continue
		}
		if err != nil {
			return err
		}
		for _, version := range l.sysctl {
			if err := sysctl(version); !errors.Is(err, unix.EACCES) {
				return err
			}
		}
		return fmt.Errorf("%w: Xen %v has domctl interface %#x, but answers to none of the versions of its sysctl interface that are known with that, %#x",
			ErrUnknown, r, l.domctl, l.sysctl)
	}
	newest, oldest := layouts[0], layouts[len(layouts)-1]
	return fmt.Errorf("%w: Xen %v answers to none of the known versions of its domctl interface, %#x (Xen %s) to %#x (Xen %s)",
		ErrUnknown, r, oldest.domctl, oldest.releases, newest.domctl, newest.releases)
}

// Release is the hypervisor's release.
func (h *Host) Release() guest.Release { return h.release }

// Close lets go of the host. Mappings must be closed before; domains stay as they are. The M2P stays mapped until the process
// ends, as what is kept does.
func (h *Host) Close() error {
	h.store.Lock()
	if h.store.conn != nil {
		_ = h.store.conn.Close()
		h.store.conn = nil
	}
	h.store.Unlock()
	h.memory.close()
	return h.dev.close()
}

// xenstore is the connection to xenstored, made when first needed, and again where xenstored was started anew.
func (h *Host) xenstore(ctx context.Context) (*xenstore.Conn, error) {
	h.store.Lock()
	defer h.store.Unlock()
	if h.store.conn == nil || h.store.conn.Err() != nil {
		c, err := xenstore.Dial(ctx)
		if err != nil {
			return nil, err
		}
		if h.store.conn != nil {
			_ = h.store.conn.Close()
		}
		h.store.conn = c
	}
	return h.store.conn, nil
}

// domctl is one XEN_DOMCTL operation: what it holds and points to is memory that Xen can reach.
type domctl struct {
	h   *Host
	a   *arena
	cmd command
	id  guest.DomID
	op  []byte
	u   []byte // the operation's own part
}

// domctl prepares an operation with room for extra octets that it may point to. The caller frees it.
func (h *Host) domctl(cmd command, id guest.DomID, extra int) (*domctl, error) {
	a, err := h.memory.take(domctlSize + extra + 64)
	if err != nil {
		return nil, fail(cmd.String(), id, err)
	}
	op := a.get(domctlSize)
	le.PutUint32(op, uint32(cmd))
	le.PutUint32(op[4:], h.l.domctl)
	le.PutUint16(op[8:], uint16(id))
	return &domctl{h: h, a: a, cmd: cmd, id: id, op: op, u: op[domctlHeader:]}, nil
}

// call makes the hypercall.
func (d *domctl) call() error {
	_, err := d.h.dev.call(callDomctl, address(d.op))
	return fail(d.cmd.String(), d.id, err)
}

func (d *domctl) free() { d.a.free() }

// buffer is n octets that the handle at offset off of the operation points to; a handle of none stays null.
func (d *domctl) buffer(off, n int) []byte {
	b := d.a.get(n)
	le.PutUint64(d.u[off:], address(b))
	return b
}

// order makes an operation that points to nothing and answers nothing.
func (h *Host) order(cmd command, id guest.DomID, set func(u []byte)) error {
	d, err := h.domctl(cmd, id, 0)
	if err != nil {
		return err
	}
	defer d.free()
	if set != nil {
		set(d.u)
	}
	return d.call()
}

// vcpuBuffer makes an operation on a vCPU that takes octets: the vCPU's number is its first field, the handle at handle.
func (h *Host) vcpuBuffer(cmd command, id guest.DomID, n uint32, handle int, data []byte, set func(u []byte)) error {
	d, err := h.domctl(cmd, id, len(data))
	if err != nil {
		return err
	}
	defer d.free()
	le.PutUint32(d.u, n)
	copy(d.buffer(handle, len(data)), data)
	if set != nil {
		set(d.u)
	}
	return detail(d.call(), "vCPU %d", n)
}

// memoryOp makes a memory_op whose structure is op, in a's memory, and returns its result in full: Linux would cut it to
// 32 bits, but not what a multicall leaves in memory.
func (h *Host) memoryOp(a *arena, name string, cmd uint64, id guest.DomID, op []byte) (uint64, error) {
	const maxErrno = 4095
	e := a.get(64)
	le.PutUint64(e, callMemoryOp)
	le.PutUint64(e[16:], cmd)
	le.PutUint64(e[24:], address(op))
	if _, err := h.dev.call(callMulticall, address(e), 1); err != nil {
		return 0, fail(name, id, err)
	}
	r := le.Uint64(e[8:])
	if r > ^uint64(maxErrno) {
		return 0, fail(name, id, unix.Errno(-r))
	}
	return r, nil
}
