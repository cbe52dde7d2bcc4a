package guestos

import (
	"context"
	"errors"
	"testing"

	"xenferry/lib/guest"
)

// TestPassive plays a kernel's part of suspend for a guest that no longer knows itself.
func TestPassive(t *testing.T) {
	for _, o := range kinds() {
		o.Pages, o.VCPUs, o.Seed = 1000, 1, 8
		k := build(t, o)
		k.info[0] ^= 1
		if _, err := Attach(k.hv); !errors.Is(err, ErrPassive) {
			t.Fatalf("%v: found: %v", o.Kind, err)
		}
		g := NewPassive(k.hv)
		g.Start()
		g.Stop()
		for _, cancelled := range []bool{true, false} {
			if err := g.Suspend(context.Background()); err != nil {
				t.Fatalf("%v: %v", o.Kind, err)
			}
			if answered(k.hv) {
				t.Errorf("%v: suspended with an answer in rax", o.Kind)
			}
			store, console := uint64(k.Store), uint64(k.Console)
			if got := rings(k); o.Kind.PV() && got != [2]uint64{store, console} {
				t.Errorf("%v: suspended: start_info has %#x, want %#x, %#x", o.Kind, got, store, console)
			}
			if err := setAnswer(k.hv, 1); err != nil && o.Kind.PV() {
				t.Fatal(err)
			}
			g.Resumed(cancelled)
			if cancelled {
				store, console = uint64(k.frame(k.Store)), uint64(k.frame(k.Console))
			}
			if got := rings(k); o.Kind.PV() && got != [2]uint64{store, console} {
				t.Errorf("%v: resumed, cancelled %v: start_info has %#x, want %#x, %#x", o.Kind, cancelled, got, store, console)
			}
		}
	}
}

// rings is what a PV guest's start_info says of where xenstore's and the console's rings are.
func rings(k *Kernel) [2]uint64 {
	if !k.Kind.PV() {
		return [2]uint64{}
	}
	s, w := startOf(k.Kind), k.Kind.Width()
	page := k.page(k.StartInfo)
	return [2]uint64{word(page[s.storeMFN:], w), word(page[s.consoleMFN:], w)}
}

// setAnswer makes a suspend hypercall return.
func setAnswer(hv Hypervisor, rax uint64) error {
	c, err := hv.VCPUContext(0)
	if err != nil {
		return err
	}
	l, w := contextOf(hv.Spec().Kind), hv.Spec().Kind.Width()
	putWord(c[l.rax:], w, rax)
	return hv.SetVCPUContext(0, c)
}

// TestPassiveWithoutStartInfo: there must be something to suspend.
func TestPassiveWithoutStartInfo(t *testing.T) {
	k := build(t, Options{Kind: guest.PV64, P2M: Tree, Pages: 1000, VCPUs: 1})
	c, err := k.hv.VCPUContext(0)
	if err != nil {
		t.Fatal(err)
	}
	putWord(c[contextOf(k.Kind).rdx:], 8, uint64(guest.InvalidMFN))
	if err := k.hv.SetVCPUContext(0, c); err != nil {
		t.Fatal(err)
	}
	if err := NewPassive(k.hv).Suspend(context.Background()); err == nil {
		t.Error("suspended")
	}
}
