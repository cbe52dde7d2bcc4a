package x86

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"xenferry/lib/guest"
)

// fakeHost is a host with one domain that takes everything and checks nothing: for inputs that a simulated machine would
// refuse or could not hold. What a test does not need is left to the nil Host.
type fakeHost struct {
	Host
	release guest.Release
	info    guest.Info
	bits    int
	pages   map[guest.GFN][]byte
	m2p     guest.M2P
	types   map[guest.GFN]guest.PageType
	rng     *rand.Rand
	pinned  int
}

var errRefused = errors.New("refused")

func newFakeHost(kind guest.Kind, frames, maxPages uint64) *fakeHost {
	h := &fakeHost{
		release: guest.Release{Major: 4, Minor: 17},
		info:    guest.Info{ID: 1, Kind: kind, MaxPages: maxPages, SharedInfo: 1, StoreEvtchn: 3, ConsoleEvtchn: 4},
		bits:    8 * kind.Width(),
		pages:   map[guest.GFN][]byte{},
		types:   map[guest.GFN]guest.PageType{},
		m2p:     make(guest.M2P, frames),
		rng:     rand.New(rand.NewPCG(1, 2)),
	}
	for i := range h.m2p {
		h.m2p[i] = uint64(guest.InvalidPFN)
	}
	h.pages[1] = make([]byte, guest.PageSize)
	return h
}

// frame gives the domain a new frame for p, not one of those below 16.
func (h *fakeHost) frame(p guest.PFN) guest.MFN {
	for {
		m := guest.MFN(h.rng.Uint64N(uint64(len(h.m2p))))
		if m >= 16 && h.pages[guest.GFN(m)] == nil {
			h.pages[guest.GFN(m)] = make([]byte, guest.PageSize)
			h.m2p[m] = uint64(p)
			return m
		}
	}
}

func (h *fakeHost) Release() guest.Release { return h.release }

func (h *fakeHost) Info(context.Context, guest.DomID) (guest.Info, error) { return h.info, nil }

func (h *fakeHost) M2P(context.Context) (guest.M2P, error) { return h.m2p, nil }

func (h *fakeHost) CompatM2P(context.Context) (guest.MFN, error) { return 2, nil }

func (h *fakeHost) AddressSize(context.Context, guest.DomID) (int, error) { return h.bits, nil }

func (h *fakeHost) SetAddressSize(_ context.Context, _ guest.DomID, bits int) error {
	if len(h.pages) > 1 {
		return errRefused
	}
	h.bits = bits
	return nil
}

func (h *fakeHost) PageTypes(_ context.Context, _ guest.DomID, gfns []guest.GFN, types []guest.PageType) error {
	for i, g := range gfns {
		if types[i] = guest.XTab; h.pages[g] != nil {
			types[i] = h.types[g]
		}
	}
	return nil
}

func (h *fakeHost) Map(_ context.Context, _ guest.DomID, gfns []guest.GFN, _ guest.Prot) (*guest.Mapping, error) {
	m := &guest.Mapping{Pages: make([][]byte, len(gfns))}
	for i, g := range gfns {
		if m.Pages[i] = h.pages[g]; m.Pages[i] == nil {
			if m.Errs == nil {
				m.Errs = make([]error, len(gfns))
			}
			m.Errs[i] = fmt.Errorf("frame %#x: %w", g, errRefused)
		}
	}
	return m, nil
}

func (h *fakeHost) Populate(_ context.Context, _ guest.DomID, gfns []guest.GFN) error {
	if uint64(len(h.pages)+len(gfns)) > h.info.MaxPages+1 {
		return errRefused
	}
	for i, g := range gfns {
		if h.info.Kind.PV() {
			gfns[i] = guest.GFN(h.frame(guest.PFN(g)))
		} else {
			h.pages[g] = make([]byte, guest.PageSize)
		}
	}
	return nil
}

func (h *fakeHost) Depopulate(_ context.Context, _ guest.DomID, gfns []guest.GFN) error {
	for _, g := range gfns {
		if h.pages[g] == nil {
			return errRefused
		}
		delete(h.pages, g)
	}
	return nil
}

func (h *fakeHost) Pin(_ context.Context, _ guest.DomID, ops []guest.PinOp) error {
	h.pinned += len(ops)
	return nil
}

func (h *fakeHost) SetVCPUContext(context.Context, guest.DomID, uint32, []byte) error  { return nil }
func (h *fakeHost) SetVCPUExtended(context.Context, guest.DomID, uint32, []byte) error { return nil }
func (h *fakeHost) SetVCPUXSave(context.Context, guest.DomID, uint32, []byte) error    { return nil }
func (h *fakeHost) SetVCPUMSRs(context.Context, guest.DomID, uint32, []guest.MSR) error {
	return nil
}
func (h *fakeHost) SetHVMContext(context.Context, guest.DomID, []byte) error            { return nil }
func (h *fakeHost) SetHVMParam(context.Context, guest.DomID, uint32, uint64) error      { return nil }
func (h *fakeHost) SetTSC(context.Context, guest.DomID, guest.TSC) error                { return nil }
func (h *fakeHost) SetCPUPolicy(context.Context, guest.DomID, guest.CPUPolicy) error    { return nil }
func (h *fakeHost) SeedGrants(context.Context, guest.DomID, guest.GFN, guest.GFN) error { return nil }
