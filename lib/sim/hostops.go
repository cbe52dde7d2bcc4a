package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/sim/machine"
)

// Release is the Xen release that the host plays.
func (c *Client) Release() guest.Release { return c.welcome.Release }

// KernelLog reports whether the host's dirty log is the kernel's rather than kept in software.
func (c *Client) KernelLog() bool { return c.welcome.KernelLog }

// ask makes a request without bodies.
func (c *Client) ask(ctx context.Context, o op, id guest.DomID, a, b uint64) (h header, err error) {
	err = c.call(ctx, header{op: o, domain: id, a: a, b: b}, nil, func(answer header, _ []byte) error { h = answer; return nil })
	return h, err
}

// fetch makes a request whose answer is JSON of v.
func (c *Client) fetch(ctx context.Context, o op, id guest.DomID, a uint64, v any) error {
	return c.call(ctx, header{op: o, domain: id, a: a}, nil, func(_ header, body []byte) error { return json.Unmarshal(body, v) })
}

// store makes a request whose body is JSON of v.
func (c *Client) store(ctx context.Context, o op, id guest.DomID, a uint64, v any) (h header, err error) {
	body, err := json.Marshal(v)
	if err != nil {
		return h, err
	}
	err = c.call(ctx, header{op: o, domain: id, a: a}, body, func(answer header, _ []byte) error { h = answer; return nil })
	return h, err
}

// bytes makes a request whose answer is octets.
func (c *Client) bytes(ctx context.Context, o op, id guest.DomID, a uint64) (b []byte, err error) {
	err = c.call(ctx, header{op: o, domain: id, a: a}, nil, func(_ header, body []byte) error {
		b = slices.Clone(body)
		return nil
	})
	return b, err
}

// Info tells about one domain.
func (c *Client) Info(ctx context.Context, id guest.DomID) (i guest.Info, err error) {
	err = c.fetch(ctx, opInfo, id, 0, &i)
	return i, err
}

// Domains lists all domains in order of their numbers.
func (c *Client) Domains(ctx context.Context) (all []guest.Info, err error) {
	err = c.fetch(ctx, opDomains, 0, 0, &all)
	return all, err
}

// Create makes a domain, paused and without memory.
func (c *Client) Create(ctx context.Context, spec guest.Spec) (guest.DomID, error) {
	h, err := c.store(ctx, opCreate, 0, 0, spec)
	return guest.DomID(h.a), err
}

// Destroy ends a domain. While somebody still maps its frames writably it stays, dying.
func (c *Client) Destroy(ctx context.Context, id guest.DomID) error {
	_, err := c.ask(ctx, opDestroy, id, 0, 0)
	return err
}

// Rename gives a domain another name, which others may have too.
func (c *Client) Rename(ctx context.Context, id guest.DomID, name string) error {
	return c.call(ctx, header{op: opRename, domain: id}, []byte(name), nil)
}

// Pause stops a domain's vCPUs. Pauses count.
func (c *Client) Pause(ctx context.Context, id guest.DomID) error {
	_, err := c.ask(ctx, opPause, id, 0, 0)
	return err
}

// Unpause takes one pause away; the first one lets the domain begin.
func (c *Client) Unpause(ctx context.Context, id guest.DomID) error {
	_, err := c.ask(ctx, opUnpause, id, 0, 0)
	return err
}

// Shutdown stops a domain for reason, without asking its guest (SCHEDOP_remote_shutdown).
func (c *Client) Shutdown(ctx context.Context, id guest.DomID, reason guest.ShutdownReason) error {
	_, err := c.ask(ctx, opShutdown, id, uint64(reason), 0)
	return err
}

// Suspend asks the guest to suspend itself and returns once it has. When ctx ends first the request is withdrawn.
func (c *Client) Suspend(ctx context.Context, id guest.DomID) error {
	_, err := c.ask(ctx, opSuspend, id, 0, 0)
	return err
}

// Resume lets a suspended domain run on as if the suspend had been cancelled.
func (c *Client) Resume(ctx context.Context, id guest.DomID) error {
	_, err := c.ask(ctx, opResume, id, 0, 0)
	return err
}

// Call makes a request of the server's Software: req and resp, a pointer or nil, are as JSON has them.
func (c *Client) Call(ctx context.Context, op string, req, resp any) error {
	r, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	body, err := json.Marshal(callRequest{op, r})
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return c.call(ctx, header{op: opCall}, body, func(_ header, body []byte) error {
		if resp == nil {
			return nil
		}
		return json.Unmarshal(body, resp)
	})
}

// M2P is the machine-to-guest table.
func (c *Client) M2P(context.Context) (guest.M2P, error) {
	c.maps.Lock()
	defer c.maps.Unlock()
	if c.m2p == nil {
		size := (c.welcome.Frames*8 + guest.PageSize - 1) &^ (guest.PageSize - 1)
		b, err := unix.Mmap(c.m2pFD, 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("simulated host: map the M2P: %w", err)
		}
		w, err := words[uint64](b)
		if err != nil {
			return nil, err
		}
		c.m2p = w[:c.welcome.Frames]
	}
	return c.m2p, nil
}

// CompatM2P is the first frame of the M2P that 32-bit PV guests see.
func (c *Client) CompatM2P(context.Context) (guest.MFN, error) { return c.welcome.CompatM2P, nil }

// MaxGFN is the highest GFN of an HVM domain.
func (c *Client) MaxGFN(ctx context.Context, id guest.DomID) (guest.GFN, error) {
	h, err := c.ask(ctx, opMaxGFN, id, 0, 0)
	return guest.GFN(h.a), err
}

// PageTypes sets types[i] to the type of gfns[i].
func (c *Client) PageTypes(ctx context.Context, id guest.DomID, gfns []guest.GFN, types []guest.PageType) error {
	return c.call(ctx, header{op: opPageTypes, domain: id}, octets(gfns), func(_ header, body []byte) error {
		if len(body) != len(gfns) {
			return fmt.Errorf("page types of domain %d: %d answers for %d frames", id, len(body), len(gfns))
		}
		copy(typeOctets(types), body)
		return nil
	})
}

// Map maps gfns in order. Pages of a read-only mapping fault when written to.
func (c *Client) Map(ctx context.Context, id guest.DomID, gfns []guest.GFN, prot guest.Prot) (*guest.Mapping, error) {
	mem, err := c.memory(prot)
	if err != nil {
		return nil, err
	}
	m := &guest.Mapping{Pages: make([][]byte, len(gfns))}
	err = c.call(ctx, header{op: opMap, domain: id, a: uint64(prot)}, octets(gfns), func(h header, body []byte) error {
		if h.a != 0 {
			// What was mapped must be unmapped whatever becomes of the context.
			m.Unmap = sync.OnceValue(func() error {
				_, err := c.ask(context.WithoutCancel(ctx), opUnmap, 0, h.a, 0)
				return err
			})
		}
		return fillMapping(m, mem, gfns, body)
	})
	if err != nil {
		_ = m.Close()
		return nil, err
	}
	if prot == guest.ReadWrite {
		// A page's first read maps its neighbours in the file, too, and all of them writably; a first write maps one
		// page alone. So this saves three quarters of the time that faults take.
		for _, p := range m.Pages {
			touch(p)
		}
	}
	return m, nil
}

// fillMapping takes the answer to opMap apart: the frames of gfns, and why some are not mapped.
func fillMapping(m *guest.Mapping, mem []byte, gfns []guest.GFN, body []byte) error {
	n := len(gfns) * 8
	if len(body) < n {
		return fmt.Errorf("map frames: %d octets answer for %d frames", len(body), len(gfns))
	}
	mfns, err := words[guest.MFN](body[:n])
	if err != nil {
		return err
	}
	for i, f := range mfns {
		if f == guest.InvalidMFN {
			continue
		}
		if uint64(f) >= uint64(len(mem))/guest.PageSize {
			return fmt.Errorf("map frames: frame %#x is past the end of machine memory", uint64(f))
		}
		at := uint64(f) * guest.PageSize
		m.Pages[i] = mem[at : at+guest.PageSize : at+guest.PageSize]
	}
	if len(body) == n {
		return nil
	}
	var refused []frameRefusal
	if err := json.Unmarshal(body[n:], &refused); err != nil {
		return fmt.Errorf("map frames: %w", err)
	}
	m.Errs = make([]error, len(gfns))
	for _, r := range refused {
		m.Errs[r.Index] = fmt.Errorf("map frame %#x: %w", uint64(gfns[r.Index]), machine.FrameError(r.Errno, r.Why))
	}
	return nil
}

// Populate gives the domain one new frame for each of gfns. For a PV domain gfns[i] becomes the MFN.
func (c *Client) Populate(ctx context.Context, id guest.DomID, gfns []guest.GFN) error {
	return c.call(ctx, header{op: opPopulate, domain: id}, octets(gfns), func(_ header, body []byte) error {
		if len(body) != len(gfns)*8 {
			return fmt.Errorf("populate domain %d: %d octets answer for %d frames", id, len(body), len(gfns))
		}
		copy(octets(gfns), body)
		return nil
	})
}

// Depopulate takes frames back, in order up to the first that is refused.
func (c *Client) Depopulate(ctx context.Context, id guest.DomID, gfns []guest.GFN) error {
	return c.call(ctx, header{op: opDepopulate, domain: id}, octets(gfns), nil)
}

// SetLogDirty begins or ends the log of a domain's writes.
func (c *Client) SetLogDirty(ctx context.Context, id guest.DomID, on bool) error {
	_, err := c.ask(ctx, opSetLogDirty, id, flag(on, 1), 0)
	return err
}

// Dirty sets dirty to those of frames 0 to frames-1 that were written since the log began or was last cleaned.
func (c *Client) Dirty(ctx context.Context, id guest.DomID, frames uint64, dirty guest.Bitmap, clean, final bool) (n uint64, err error) {
	if uint64(len(dirty))*64 < frames {
		return 0, fmt.Errorf("read dirty log of domain %d: a bitmap of %d is too short for %d frames", id, len(dirty)*64, frames)
	}
	h := header{op: opDirty, domain: id, a: frames, b: flag(clean, dirtyClean) | flag(final, dirtyFinal)}
	err = c.call(ctx, h, nil, func(h header, body []byte) error {
		if len(body) != len(guest.NewBitmap(frames))*8 {
			return fmt.Errorf("read dirty log of domain %d: %d octets answer for %d frames", id, len(body), frames)
		}
		n = h.a
		clear(dirty)
		copy(octets(dirty), body)
		return nil
	})
	return n, err
}

func flag(on bool, bit uint64) uint64 {
	if on {
		return bit
	}
	return 0
}

// AddressSize is a PV domain's word size in bits.
func (c *Client) AddressSize(ctx context.Context, id guest.DomID) (int, error) {
	h, err := c.ask(ctx, opAddressSize, id, 0, 0)
	return int(h.a), err
}

// SetAddressSize changes it while the domain has no frames.
func (c *Client) SetAddressSize(ctx context.Context, id guest.DomID, bits int) error {
	_, err := c.ask(ctx, opSetAddressSize, id, uint64(bits), 0)
	return err
}

// Pin pins page tables of a PV domain, in order up to the first that is refused.
func (c *Client) Pin(ctx context.Context, id guest.DomID, ops []guest.PinOp) error {
	w := make([]uint64, 0, 2*len(ops))
	for _, o := range ops {
		w = append(w, uint64(o.MFN), uint64(o.Level))
	}
	return c.call(ctx, header{op: opPin, domain: id}, octets(w), nil)
}

// VCPUOnline reports whether vCPU n is up.
func (c *Client) VCPUOnline(ctx context.Context, id guest.DomID, n uint32) (bool, error) {
	h, err := c.ask(ctx, opVCPUOnline, id, uint64(n), 0)
	return h.a != 0, err
}

// VCPUContext is a vCPU's vcpu_guest_context: 5168 octets, or 2800 for a PV32 domain.
func (c *Client) VCPUContext(ctx context.Context, id guest.DomID, n uint32) ([]byte, error) {
	return c.bytes(ctx, opVCPUContext, id, uint64(n))
}

// SetVCPUContext loads one.
func (c *Client) SetVCPUContext(ctx context.Context, id guest.DomID, n uint32, context []byte) error {
	return c.call(ctx, header{op: opSetVCPUContext, domain: id, a: uint64(n)}, context, nil)
}

// VCPUExtended is a PV vCPU's xen_domctl_ext_vcpucontext, empty for an HVM domain.
func (c *Client) VCPUExtended(ctx context.Context, id guest.DomID, n uint32) ([]byte, error) {
	return c.bytes(ctx, opVCPUExtended, id, uint64(n))
}

// SetVCPUExtended loads one.
func (c *Client) SetVCPUExtended(ctx context.Context, id guest.DomID, n uint32, ext []byte) error {
	return c.call(ctx, header{op: opSetVCPUExtended, domain: id, a: uint64(n)}, ext, nil)
}

// VCPUXSave is a PV vCPU's xcr0, xcr0_accum and XSAVE image, empty where there is none.
func (c *Client) VCPUXSave(ctx context.Context, id guest.DomID, n uint32) ([]byte, error) {
	return c.bytes(ctx, opVCPUXSave, id, uint64(n))
}

// SetVCPUXSave loads them.
func (c *Client) SetVCPUXSave(ctx context.Context, id guest.DomID, n uint32, xsave []byte) error {
	return c.call(ctx, header{op: opSetVCPUXSave, domain: id, a: uint64(n)}, xsave, nil)
}

// VCPUMSRs are a PV vCPU's MSRs that are not zero.
func (c *Client) VCPUMSRs(ctx context.Context, id guest.DomID, n uint32) (msrs []guest.MSR, err error) {
	err = c.fetch(ctx, opVCPUMSRs, id, uint64(n), &msrs)
	return msrs, err
}

// SetVCPUMSRs loads some.
func (c *Client) SetVCPUMSRs(ctx context.Context, id guest.DomID, n uint32, msrs []guest.MSR) error {
	_, err := c.store(ctx, opSetVCPUMSRs, id, uint64(n), msrs)
	return err
}

// HVMContext is the whole of an HVM domain's state beside memory and parameters.
func (c *Client) HVMContext(ctx context.Context, id guest.DomID) ([]byte, error) {
	return c.bytes(ctx, opHVMContext, id, 0)
}

// SetHVMContext loads it.
func (c *Client) SetHVMContext(ctx context.Context, id guest.DomID, blob []byte) error {
	return c.call(ctx, header{op: opSetHVMContext, domain: id}, blob, nil)
}

// HVMParam is one HVM parameter. An index that the release lacks is refused.
func (c *Client) HVMParam(ctx context.Context, id guest.DomID, index uint32) (uint64, error) {
	h, err := c.ask(ctx, opHVMParam, id, uint64(index), 0)
	return h.a, err
}

// SetHVMParam sets one.
func (c *Client) SetHVMParam(ctx context.Context, id guest.DomID, index uint32, value uint64) error {
	_, err := c.ask(ctx, opSetHVMParam, id, uint64(index), value)
	return err
}

// TSC is the domain's time stamp counter.
func (c *Client) TSC(ctx context.Context, id guest.DomID) (t guest.TSC, err error) {
	err = c.fetch(ctx, opTSC, id, 0, &t)
	return t, err
}

// SetTSC loads it; the incarnation told afterwards is one more.
func (c *Client) SetTSC(ctx context.Context, id guest.DomID, tsc guest.TSC) error {
	_, err := c.store(ctx, opSetTSC, id, 0, tsc)
	return err
}

// CPUPolicy is what the domain sees of its processor.
func (c *Client) CPUPolicy(ctx context.Context, id guest.DomID) (p guest.CPUPolicy, err error) {
	err = c.fetch(ctx, opCPUPolicy, id, 0, &p)
	return p, err
}

// SetCPUPolicy merges p into what is there, before the domain first runs.
func (c *Client) SetCPUPolicy(ctx context.Context, id guest.DomID, p guest.CPUPolicy) error {
	_, err := c.store(ctx, opSetCPUPolicy, id, 0, p)
	return err
}

// SeedGrants writes grant entries 0 (console) and 1 (store). A frame of InvalidGFN is left out.
func (c *Client) SeedGrants(ctx context.Context, id guest.DomID, console, store guest.GFN) error {
	_, err := c.ask(ctx, opSeedGrants, id, uint64(console), uint64(store))
	return err
}

// Grants is grant entries 0 (console) and 1 (store), InvalidGFN where there is none.
func (c *Client) Grants(ctx context.Context, id guest.DomID) (console, store guest.GFN, err error) {
	h, err := c.ask(ctx, opGrants, id, 0, 0)
	return guest.GFN(h.a), guest.GFN(h.b), err
}
