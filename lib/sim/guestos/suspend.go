package guestos

import (
	"context"
	"fmt"

	"xenferry/lib/guest"
)

// Suspend stops the vCPUs and brings the guest into the form in which it is saved: the frame numbers that a PV guest
// was told as such become its own, and shared_info, which is no page of its own, is unmapped. A guest that was restored
// and never told that it runs is in that form but for what the restore filled in.
func (k *Kernel) Suspend(context.Context) error {
	was := k.running
	k.Stop()
	err := k.Err()
	if err == nil {
		err = guarded(k.suspend)
	}
	if err != nil {
		if was {
			k.Start()
		}
		return fmt.Errorf("guest cannot suspend: %w", err)
	}
	return nil
}

func (k *Kernel) suspend() error {
	if k.Kind.PV() {
		if err := k.suspendPV(); err != nil {
			return err
		}
	}
	if err := clearAnswer(k.hv); err != nil {
		return err
	}
	if k.State() == Running {
		k.setState(Suspended, infoSuspends)
	}
	return nil
}

// setState records a change of the guest's state, and counts it.
func (k *Kernel) setState(s State, counter int) {
	le.PutUint32(k.info[infoState:], uint32(s))
	if counter != 0 {
		le.PutUint32(k.info[counter:], le.Uint32(k.info[counter:])+1)
	}
	k.hv.Wrote(k.infoMFN)
}

// suspendPV is what a PV guest does to be saved.
func (k *Kernel) suspendPV() error {
	if k.State() == Running {
		if err := k.mapShared(0); err != nil {
			return err
		}
	} else {
		k.showP2MAgain()
	}
	s, w := startOf(k.Kind), k.Kind.Width()
	m := k.frame(k.StartInfo)
	page := k.hv.Page(m)
	putWord(page[s.storeMFN:], w, uint64(k.Store))
	putWord(page[s.consoleMFN:], w, uint64(k.Console))
	k.hv.Wrote(m)
	return nil
}

// mapShared maps shared_info where the kernel has it, or unmaps it with flags 0.
func (k *Kernel) mapShared(flags uint64) error {
	table, slot, err := k.lookup(k.space.shared, 1)
	if err != nil {
		return err
	}
	pte := uint64(0)
	if flags != 0 {
		pte = uint64(k.sharedMFN)<<guest.PageShift | flags
	}
	return k.cpus[0].setPTE(table, slot, pte)
}

// showP2MAgain rebuilds what a restore cannot: the tree above the P2M, and where the toolstack finds either form.
func (k *Kernel) showP2MAgain() {
	if k.P2M == Tree {
		k.buildTree(k.listPages(), k.leafPages())
	}
	page, m := k.hv.SharedInfo()
	k.showP2M(page)
	k.hv.Wrote(m)
}

// clearAnswer makes vCPU 0's suspend hypercall one that has not returned: a copy that is made now will find 0 in rax,
// which says that it is in a new domain.
func clearAnswer(hv Hypervisor) error {
	c, err := hv.VCPUContext(0)
	if err != nil {
		return err
	}
	kind := hv.Spec().Kind
	l, w := contextOf(kind), kind.Width()
	if word(c[l.rax:], w) == 0 {
		return nil
	}
	putWord(c[l.rax:], w, 0)
	return hv.SetVCPUContext(0, c)
}

// Resumed is how the guest goes on after its suspend: where it was, or in a domain that it must find its way in.
func (k *Kernel) Resumed(cancelled bool) {
	if k.State() != Suspended {
		return
	}
	if err := guarded(func() error { return k.resume(cancelled) }); err != nil {
		k.fail(fmt.Errorf("guest cannot resume: %w", err))
	}
}

func (k *Kernel) resume(cancelled bool) error {
	counter := 0
	if !cancelled {
		counter = infoRestores
	}
	defer k.setState(Running, counter)
	if !k.Kind.PV() {
		if cancelled {
			return nil
		}
		return k.hv.SetHVMParam(paramCallbackIRQ, callbackVector)
	}
	if cancelled {
		s, w := startOf(k.Kind), k.Kind.Width()
		m := k.frame(k.StartInfo)
		page := k.hv.Page(m)
		putWord(page[s.storeMFN:], w, uint64(k.frame(k.Store)))
		putWord(page[s.consoleMFN:], w, uint64(k.frame(k.Console)))
		k.hv.Wrote(m)
	} else {
		k.showP2MAgain()
		page, m := k.hv.SharedInfo()
		k.bindPorts(page)
		k.hv.Wrote(m)
	}
	return k.mapShared(pteRW)
}
