package guestos

import (
	"context"
	"fmt"

	"xenferry/lib/guest"
)

// Passive is a guest that is not ours, such as one that was restored from a stream of a real Xen host: it does not run,
// and all that is played of it is a kernel's part of suspend and resume.
type Passive struct {
	hv   Hypervisor
	back func() // undoes what Suspend did to start_info
}

// NewPassive is the guest of a domain in which Attach finds none.
func NewPassive(hv Hypervisor) *Passive { return &Passive{hv: hv} }

// Start and Stop do nothing.
func (g *Passive) Start() {}

// Stop does nothing.
func (g *Passive) Stop() {}

// Suspend puts PFNs for the frames of xenstore and the console into a PV guest's start_info, whose frame is in vCPU 0's
// rdx from an earlier suspend. What holds a PFN already stays. A P2M tree that a restore has cut off
// from shared_info is not rebuilt, as only its own kernel knows its upper levels.
func (g *Passive) Suspend(context.Context) error {
	kind := g.hv.Spec().Kind
	if kind.PV() {
		if err := g.suspendPV(kind); err != nil {
			return fmt.Errorf("passive guest cannot suspend: %w", err)
		}
	}
	return clearAnswer(g.hv)
}

func (g *Passive) suspendPV(kind guest.Kind) error {
	c, err := g.hv.VCPUContext(0)
	if err != nil {
		return err
	}
	m := guest.MFN(word(c[contextOf(kind).rdx:], kind.Width()))
	page := g.hv.Page(m)
	if page == nil {
		return fmt.Errorf("frame %#x in vCPU 0's rdx is not the guest's start_info", uint64(m))
	}
	s, w := startOf(kind), kind.Width()
	var undo []func()
	for _, at := range []int{s.storeMFN, s.consoleMFN} {
		f := guest.MFN(word(page[at:], w))
		if f == 0 || g.hv.Page(f) == nil {
			continue
		}
		putWord(page[at:], w, uint64(g.hv.M2P(f)))
		undo = append(undo, func() { putWord(page[at:], w, uint64(f)) })
	}
	g.hv.Wrote(m)
	if len(undo) > 0 {
		g.back = func() {
			for _, f := range undo {
				f()
			}
			g.hv.Wrote(m)
		}
	}
	return nil
}

// Resumed puts the frames back if the guest is still where it was.
func (g *Passive) Resumed(cancelled bool) {
	if cancelled && g.back != nil {
		g.back()
	}
	g.back = nil
}
