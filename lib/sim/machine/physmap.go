package machine

import (
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// frameOf is the machine frame behind g, which must be the domain's; its shared_info is among them.
func (d *domain) frameOf(g guest.GFN) (guest.MFN, error) {
	if !d.pv() {
		if f := d.p2m.get(g); f != guest.InvalidMFN {
			return f, nil
		}
		return guest.InvalidMFN, refuse(unix.EINVAL, "no frame at gfn %#x", uint64(g))
	}
	if f := guest.MFN(g); d.owns(f) {
		return f, nil
	}
	return guest.InvalidMFN, refuse(unix.EINVAL, "frame %#x is not the domain's", uint64(g))
}

// owns reports whether frame f exists and is d's, shared_info included.
func (d *domain) owns(f guest.MFN) bool {
	return uint64(f) < uint64(len(d.m.frames)) && d.m.frames[f].owner() == d.id
}

// ownsRAM leaves shared_info out.
func (d *domain) ownsRAM(f guest.MFN) bool { return d.owns(f) && !d.m.frames[f].is(infoXenHeap) }

// Populate gives the domain one frame for each of gfns, in order. It stops with EBUSY at the domain's limit or when
// memory runs out, as XENMEM_populate_physmap's short count is told; what was populated until then stays.
// For a PV domain gfns[i] becomes the MFN. A GFN that an HVM domain has already is refused.
func (m *Machine) Populate(id guest.DomID, gfns []guest.GFN) error {
	return m.with("populate", id, func(d *domain) error {
		if d.dying {
			return refuse(unix.EINVAL, "it is dying")
		}
		return d.populate(gfns)
	})
}

func (d *domain) populate(gfns []guest.GFN) error {
	m := d.m
	n := min(uint64(len(gfns)), d.spec.MaxPages-min(d.pages, d.spec.MaxPages), m.free.left())
	frames := make([]guest.MFN, n)
	m.allocateAll(d.id, frames)
	for i, f := range frames {
		if err := d.add(gfns[i], f); err != nil {
			for _, f := range frames[i:] {
				m.releaseFrame(f)
			}
			return refuse(errnoOf(err), "%s (%d of %d done)", whyOf(err), i, len(gfns))
		}
		if d.pv() {
			gfns[i] = guest.GFN(f)
		}
	}
	switch {
	case n == uint64(len(gfns)):
		return nil
	case d.pages >= d.spec.MaxPages:
		return refuse(unix.EBUSY, "the limit of %d pages is reached (%d of %d done)", d.spec.MaxPages, n, len(gfns))
	}
	return refuse(unix.EBUSY, "the host has no free memory (%d of %d done)", n, len(gfns))
}

// add makes f, a frame that was allocated for the domain, its page g.
func (d *domain) add(g guest.GFN, f guest.MFN) error {
	if g >= maxGFN {
		return refuse(unix.EINVAL, "gfn %#x is beyond the guest's address space", uint64(g))
	}
	if !d.pv() {
		if d.p2m.get(g) != guest.InvalidMFN {
			return refuse(unix.EEXIST, "gfn %#x has a frame already", uint64(g))
		}
		d.p2m.set(g, f)
		if d.dirty != nil && d.m.release.AtLeast(4, 22) {
			d.dirty.set(guest.PFN(g))
		}
	}
	d.pages++
	d.m.setM2P(f, guest.PFN(g))
	return nil
}

// Depopulate takes frames back, in order up to the first that is refused: one that is not the domain's, or that a
// page table, a vCPU or a mapping still refers to.
func (m *Machine) Depopulate(id guest.DomID, gfns []guest.GFN) error {
	return m.with("depopulate", id, func(d *domain) error { return d.depopulate(gfns) })
}

func (d *domain) depopulate(gfns []guest.GFN) error {
	m := d.m
	for i, g := range gfns {
		f, err := d.frameOf(g)
		if err != nil {
			return err
		}
		if fr := &m.frames[f]; fr.is(infoXenHeap) {
			return refuse(unix.EINVAL, "frame %#x is Xen's (%d of %d done)", uint64(f), i, len(gfns))
		} else if fr.refs > 0 {
			return refuse(unix.EBUSY, "frame %#x is in use: %v, %d references (%d of %d done)", uint64(f), fr.typ(), fr.refs, i, len(gfns))
		}
		if !d.pv() {
			d.p2m.clear(g)
			if d.dirty != nil && m.release.AtLeast(4, 22) {
				d.dirty.unset(guest.PFN(g))
			}
		}
		m.releaseFrame(f)
		d.pages--
	}
	return nil
}

// PageTypes sets types[i] to the type of gfns[i]; what is not there, not RAM or not the domain's is XTab.
func (m *Machine) PageTypes(id guest.DomID, gfns []guest.GFN, types []guest.PageType) error {
	return m.with("page types of", id, func(d *domain) error {
		for i, g := range gfns {
			types[i] = guest.XTab
			if f, err := d.frameOf(g); err == nil {
				types[i] = m.frames[f].pageType()
			}
		}
		return nil
	})
}

// hold is frames that a client has mapped writably.
type hold struct {
	d      *domain
	frames []guest.MFN
}

// Map sets mfns[i] to the frame behind gfns[i] for a client that maps them, or to InvalidMFN where that is refused,
// with the reason in errs[i]; errs is nil when there are none. Read-only mappings are not tracked. Of a writable one
// the machine knows until Unmap(hold): the frames of a PV domain count as mapped writably, so that one in use as a
// page table or GDT cannot be mapped thus and the other way round, and what was mapped is dirty afterwards.
func (m *Machine) Map(id guest.DomID, gfns []guest.GFN, mfns []guest.MFN, prot guest.Prot) (hold uint64, errs []error, err error) {
	err = m.with("map frames of", id, func(d *domain) error {
		if d.dying {
			return refuse(unix.EINVAL, "it is dying")
		}
		for i, g := range gfns {
			f, err := d.mapFrame(g, prot)
			if mfns[i] = f; err != nil {
				if errs == nil {
					errs = make([]error, len(gfns))
				}
				errs[i] = err
			}
		}
		if prot == guest.ReadWrite {
			hold = m.hold(d, mfns)
		}
		return nil
	})
	return hold, errs, err
}

func (d *domain) mapFrame(g guest.GFN, prot guest.Prot) (guest.MFN, error) {
	f, err := d.frameOf(g)
	if err != nil || prot == guest.ReadOnly || !d.pv() {
		return f, err
	}
	if err := d.m.getType(d, f, typeWritable, 0); err != nil {
		return guest.InvalidMFN, err
	}
	d.m.frames[f].refs++
	return f, nil
}

func (m *Machine) hold(d *domain, mfns []guest.MFN) uint64 {
	h := &hold{d: d, frames: make([]guest.MFN, 0, len(mfns))}
	for _, f := range mfns {
		if f != guest.InvalidMFN {
			h.frames = append(h.frames, f)
		}
	}
	m.holdID++
	m.holds[m.holdID] = h
	d.mapped++
	return m.holdID
}

// Unmap ends a writable mapping and marks its frames dirty. It reports whether there was such a one.
func (m *Machine) Unmap(hold uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.holds[hold]
	if h == nil {
		return false
	}
	delete(m.holds, hold)
	for _, f := range h.frames {
		m.log.mark(f)
		if h.d.pv() {
			m.putType(h.d, f)
			m.frames[f].refs--
		}
	}
	h.d.mapped--
	h.d.reap()
	return true
}
