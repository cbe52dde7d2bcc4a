package machine

import (
	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// domain is one domain, under Machine.mu.
type domain struct {
	m    *Machine
	id   guest.DomID
	spec guest.Spec // Kind follows the address size

	pauses   int
	ran      bool // it has been unpaused
	shutdown bool
	reason   guest.ShutdownReason
	dying    bool // destroyed, but some of its frames are still mapped
	mapped   int  // mappings that clients hold

	pages      uint64    // frames it owns, shared_info not counted
	sharedInfo guest.MFN // PV
	p2m        p2m       // HVM
	dirty      *dirtySet // nil unless log-dirty is on
	vcpus      []vcpu

	storePort, consolePort uint32
	grants                 [2]guest.GFN // entry 0 is the console's, 1 the store's

	hvmContext []byte
	hvmParams  [hvmParamCount]uint64
	tsc        guest.TSC
	policy     policy
}

func (d *domain) pv() bool    { return d.spec.Kind.PV() }
func (d *domain) width() int  { return d.spec.Kind.Width() }
func (d *domain) levels() int { return d.spec.Kind.Levels() }

// limits of XEN_DOMCTL_createdomain.
const (
	maxPVVCPUs  = 8192
	maxHVMVCPUs = 128
)

// tscKHz is the frequency of the machine's processors.
const tscKHz = 2500000

// Create makes a domain, paused once and without memory. A PV32 domain has its address size already.
func (m *Machine) Create(spec guest.Spec) (guest.DomID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fail := func(err error) (guest.DomID, error) { return 0, wrap("create", 0, err) }
	limit := uint32(maxHVMVCPUs)
	if spec.Kind.PV() {
		limit = maxPVVCPUs
	}
	switch {
	case spec.Kind < guest.PV64 || spec.Kind > guest.PVH:
		return fail(refuse(unix.EINVAL, "no kind of guest is given"))
	case spec.VCPUs == 0 || spec.VCPUs > limit:
		return fail(refuse(unix.EINVAL, "%d vCPUs are not 1 to %d", spec.VCPUs, limit))
	}
	if spec.UUID == uuid.Nil {
		spec.UUID = uuid.New()
	}
	id, ok := m.nextID()
	if !ok {
		return fail(refuse(unix.ENOMEM, "all domain numbers are in use"))
	}
	// Hosts hand out different ports, so that a guest which kept those of its old host is found out.
	port := 1 + m.rng.Uint32N(60)
	d := &domain{
		m: m, id: id, spec: spec, pauses: 1,
		vcpus:     make([]vcpu, spec.VCPUs),
		storePort: port, consolePort: port + 1,
		grants: [2]guest.GFN{guest.InvalidGFN, guest.InvalidGFN},
		tsc:    guest.TSC{KHz: tscKHz},
		policy: defaultPolicy(),
	}
	if d.pv() {
		if d.sharedInfo = m.allocateShared(id); d.sharedInfo == guest.InvalidMFN {
			return fail(refuse(unix.ENOMEM, "no memory for its shared_info"))
		}
	}
	m.domains[id], m.lastID = d, id
	return id, nil
}

// nextID is the next unused domain number, as Xen counts them.
func (m *Machine) nextID() (guest.DomID, bool) {
	for i := range guest.FirstReservedDomID - 1 {
		id := (m.lastID+i)%(guest.FirstReservedDomID-1) + 1
		if m.domains[id] == nil {
			return id, true
		}
	}
	return 0, false
}

// allocateShared takes a frame of Xen's own memory and shares it with a domain, for it to map writably.
func (m *Machine) allocateShared(id guest.DomID) guest.MFN {
	f := m.allocate(id)
	if f == guest.InvalidMFN {
		return f
	}
	clear(m.page(f))
	m.frames[f].set(infoXenHeap)
	m.frames[f].setType(typeWritable)
	m.frames[f].types, m.frames[f].refs = 1, 1
	m.setM2P(f, guest.InvalidPFN) // it is no part of the guest's memory
	return f
}

// Destroy ends a domain. It stays, dying, until clients have closed their mappings of its frames.
func (m *Machine) Destroy(id guest.DomID) error {
	return m.with("destroy", id, func(d *domain) error {
		d.dying, d.dirty = true, nil
		d.reap()
		return nil
	})
}

// reap gives a dying domain's frames back once nobody maps them.
func (d *domain) reap() {
	if !d.dying || d.mapped > 0 {
		return
	}
	m := d.m
	for f := range m.frames {
		if m.frames[f].owner() == d.id {
			m.releaseFrame(guest.MFN(f))
		}
	}
	m.domains[d.id] = nil
}

// Info tells about a domain, Domains about all in order of their numbers.
func (m *Machine) Info(id guest.DomID) (i guest.Info, err error) {
	err = m.with("info", id, func(d *domain) error { i = d.info(); return nil })
	return i, err
}

// Domains tells about all domains in order of their numbers.
func (m *Machine) Domains() []guest.Info {
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := []guest.Info{}
	for _, d := range m.domains {
		if d != nil {
			all = append(all, d.info())
		}
	}
	return all
}

func (d *domain) info() guest.Info {
	return guest.Info{
		ID: d.id, UUID: d.spec.UUID, Name: d.spec.Name, Kind: d.spec.Kind,
		Dying: d.dying, Paused: d.pauses > 0, Shutdown: d.shutdown, Reason: d.reason,
		TotPages: d.pages, MaxPages: d.spec.MaxPages, SharedInfo: d.sharedInfo,
		MaxVCPU: uint32(len(d.vcpus) - 1), LogDirty: d.dirty != nil, EverUnpaused: d.ran,
		StoreEvtchn: d.storePort, ConsoleEvtchn: d.consolePort,
	}
}

// MaxGFN is the highest GFN that an HVM domain has ever had, or the highest PFN a PV domain says it has.
func (m *Machine) MaxGFN(id guest.DomID) (g guest.GFN, err error) {
	err = m.with("maximum gpfn of", id, func(d *domain) error {
		if !d.pv() {
			g = d.p2m.max
			return nil
		}
		shared := d.m.page(d.sharedInfo)
		n := le.Uint64(shared[sharedMaxPFN64:])
		if d.width() == 4 {
			n = uint64(le.Uint32(shared[sharedMaxPFN32:]))
		}
		g = guest.GFN(max(n, 1) - 1)
		return nil
	})
	return g, err
}

// Offsets of arch.max_pfn, a count, in shared_info.
const (
	sharedMaxPFN32 = 2316
	sharedMaxPFN64 = 3088
)

// Rename gives a domain another name.
func (m *Machine) Rename(id guest.DomID, name string) error {
	return m.with("rename", id, func(d *domain) error {
		d.spec.Name = name
		return nil
	})
}

// Pause stops a domain's vCPUs once more, Unpause once less. The caller has halted the guest, or starts it, as
// Runnable says.
func (m *Machine) Pause(id guest.DomID) error {
	return m.with("pause", id, func(d *domain) error {
		if d.dying {
			return refuse(unix.EINVAL, "it is dying")
		}
		d.pauses++
		return nil
	})
}

// Unpause takes one pause away.
func (m *Machine) Unpause(id guest.DomID) error {
	return m.with("unpause", id, func(d *domain) error {
		if err := d.mayUnpause(); err != nil {
			return err
		}
		if d.pauses--; d.pauses == 0 {
			d.ran = true
		}
		return nil
	})
}

// MayUnpause reports what Unpause would answer, and whether it would take the last pause away.
func (m *Machine) MayUnpause(id guest.DomID) (last bool, err error) {
	err = m.with("unpause", id, func(d *domain) error { last = d.pauses == 1; return d.mayUnpause() })
	return last, err
}

func (d *domain) mayUnpause() error {
	switch {
	case d.dying:
		return refuse(unix.EINVAL, "it is dying")
	case d.pauses == 0:
		return refuse(unix.EINVAL, "it is not paused")
	case d.pauses == 1 && !d.vcpus[0].initialised:
		return refuse(unix.EINVAL, "its vCPU 0 was never given a context")
	}
	return nil
}

// Runnable reports whether nothing keeps a domain's vCPUs from running.
func (m *Machine) Runnable(id guest.DomID) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	d := m.domain(id)
	return d != nil && d.pauses == 0 && !d.shutdown && !d.dying
}

// Shutdown records that a domain has stopped itself, or was made to, for reason (SCHEDOP_shutdown).
func (m *Machine) Shutdown(id guest.DomID, reason guest.ShutdownReason) error {
	return m.with("shut down", id, func(d *domain) error { return d.stop(reason) })
}

func (d *domain) stop(reason guest.ShutdownReason) error {
	if d.shutdown || d.dying {
		return refuse(unix.EINVAL, "it is shut down already")
	}
	d.shutdown, d.reason = true, reason
	return nil
}

// Resume clears a suspended domain's shutdown state (XEN_DOMCTL_resumedomain) after making its suspend hypercall
// return 1, cancelled; an HVM guest that never asked for events of Xen made no such call.
func (m *Machine) Resume(id guest.DomID) error {
	return m.with("resume", id, func(d *domain) error {
		if d.dying || !d.shutdown || d.reason != guest.ShutdownSuspend {
			return refuse(unix.EINVAL, "it is not suspended")
		}
		if d.pv() || d.hvmParams[hvmParamCallbackIRQ] != 0 {
			if err := d.cancelSuspend(); err != nil {
				return err
			}
		}
		d.shutdown, d.reason = false, 0
		return nil
	})
}

// AddressSize is a PV domain's word size in bits.
func (m *Machine) AddressSize(id guest.DomID) (bits int, err error) {
	err = m.with("get address size of", id, func(d *domain) error {
		if !d.pv() {
			return refuse(unix.EOPNOTSUPP, "it is an HVM domain")
		}
		bits = 8 * d.width()
		return nil
	})
	return bits, err
}

// SetAddressSize makes a PV domain without frames a 32-bit one. As recent releases do, it may move shared_info.
func (m *Machine) SetAddressSize(id guest.DomID, bits int) error {
	return m.with("set address size of", id, func(d *domain) error {
		switch {
		case !d.pv():
			return refuse(unix.EOPNOTSUPP, "it is an HVM domain")
		case bits == 8*d.width():
			return nil
		case bits != 32:
			return refuse(unix.EINVAL, "%d bits are wanted of a domain of %d", bits, 8*d.width())
		case d.pages > 0:
			return refuse(unix.EACCES, "it has %d pages already", d.pages)
		}
		d.spec.Kind = guest.PV32
		if m.release.AtLeast(4, 20) {
			if f := m.allocateShared(d.id); f != guest.InvalidMFN {
				m.releaseFrame(d.sharedInfo)
				d.sharedInfo = f
			}
		}
		return nil
	})
}

// SeedGrants writes grant entries 0 and 1, both towards domain 0. InvalidGFN leaves one out.
func (m *Machine) SeedGrants(id guest.DomID, console, store guest.GFN) error {
	return m.with("seed grants of", id, func(d *domain) error {
		for i, g := range [2]guest.GFN{console, store} {
			if g == guest.InvalidGFN {
				continue
			}
			if _, err := d.frameOf(g); err != nil {
				return refuse(unix.EINVAL, "grant entry %d: %v", i, err)
			}
			d.grants[i] = g
		}
		return nil
	})
}

// Grants is grant entries 0 (console) and 1 (store), InvalidGFN where there is none.
func (m *Machine) Grants(id guest.DomID) (console, store guest.GFN, err error) {
	err = m.with("grants of", id, func(d *domain) error { console, store = d.grants[0], d.grants[1]; return nil })
	return console, store, err
}

// TSC is a domain's time stamp counter.
func (m *Machine) TSC(id guest.DomID) (t guest.TSC, err error) {
	err = m.with("get TSC of", id, func(d *domain) error { t = d.tsc; return nil })
	return t, err
}

// SetTSC loads it; the incarnation that TSC tells afterwards is one more.
func (m *Machine) SetTSC(id guest.DomID, t guest.TSC) error {
	return m.with("set TSC of", id, func(d *domain) error {
		if t.Mode > 2 {
			return refuse(unix.EINVAL, "there is no TSC mode %d", t.Mode)
		}
		t.Incarnation++
		d.tsc = t
		return nil
	})
}
