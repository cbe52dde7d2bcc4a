package guestos

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/uuid"

	"xenferry/lib/guest"
	"xenferry/lib/sim/machine"
)

// tb is what testing.T and rapid.T have in common.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// newDomain makes a domain for a guest on a machine of its own.
func newDomain(t tb, o Options) Hypervisor {
	t.Helper()
	m, err := machine.New(machine.Options{Memory: (o.Pages + 4096) * guest.PageSize, Seed: o.Seed, Scrub: true, Log: machine.LogSoftware})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	id, err := m.Create(guest.Spec{Kind: o.Kind, VCPUs: o.VCPUs, MaxPages: o.MaxPages(), UUID: uuid.New()})
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.View(id)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func build(t tb, o Options) *Kernel {
	t.Helper()
	k, err := Build(newDomain(t, o), o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// passes fails the test unless the guest proves itself.
func passes(t tb, when string, r *Report) {
	t.Helper()
	if !r.OK {
		b, _ := json.MarshalIndent(r, "", "  ")
		t.Fatalf("%s: %s", when, b)
	}
}

func step(t tb, k *Kernel, n int) {
	t.Helper()
	if err := k.Step(n); err != nil {
		t.Fatal(err)
	}
}

func suspend(t tb, k *Kernel) {
	t.Helper()
	if err := k.Suspend(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// kinds are the guests that differ in more than their workload.
func kinds() (os []Options) {
	for _, k := range []guest.Kind{guest.PV64, guest.PV32} {
		for _, p := range []P2MKind{Tree, Linear} {
			os = append(os, Options{Kind: k, P2M: p})
		}
	}
	return append(os, Options{Kind: guest.HVM}, Options{Kind: guest.PVH})
}

// restoreInPlace does to a suspended guest's memory what a restore does beside moving it.
func restoreInPlace(k *Kernel) {
	if !k.Kind.PV() {
		clear(k.page(k.Store))
		clear(k.page(k.Console))
		return
	}
	w := k.Kind.Width()
	start, s := k.page(k.StartInfo), startOf(k.Kind)
	putWord(start[s.storeMFN:], w, uint64(k.frame(k.Store)))
	putWord(start[s.consoleMFN:], w, uint64(k.frame(k.Console)))
	shared, _ := k.hv.SharedInfo()
	at := sharedOf(k.Kind)
	putWord(shared[at.frameListList:], w, 0)
	for i := range at.ports {
		shared[at.mask+i] = 0xFF
	}
}

// TestLife takes every kind of guest with every workload through suspend, cancelled resume, and finding itself anew.
func TestLife(t *testing.T) {
	for _, o := range kinds() {
		for _, shape := range Shapes {
			o.Pages, o.VCPUs, o.Online, o.Seed = 3000, 3, 2, 42
			o.Workload.Shape, o.Fill = shape, Fill{Zero: 0.2, Text: 0.3}
			t.Run(fmt.Sprintf("%v %s %s", o.Kind, o.P2M, shape), func(t *testing.T) {
				k := build(t, o)
				passes(t, "built", k.Check())
				step(t, k, 300)
				passes(t, "after steps", k.Check())
				suspend(t, k)
				w := k.Witness()
				passes(t, "suspended", k.CheckAgainst(w))
				k.Resumed(true)
				passes(t, "resumed", k.CheckAgainst(w))
				step(t, k, 300)
				passes(t, "resumed and running", k.CheckAgainst(w))
				suspend(t, k)
				w = k.Witness()

				restoreInPlace(k)
				k2, err := Attach(k.hv)
				if err != nil {
					t.Fatal(err)
				}
				passes(t, "found", k2.CheckAgainst(w))
				suspend(t, k2)
				passes(t, "found and suspended again", k2.CheckAgainst(w))
				restoreInPlace(k2)
				k2.Resumed(false)
				passes(t, "in a new domain", k2.CheckAgainst(w))
				step(t, k2, 300)
				passes(t, "running in a new domain", k2.CheckAgainst(w))
			})
		}
	}
}
