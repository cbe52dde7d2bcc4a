package main

import (
	"context"
	"os"
	"testing"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"xenferry/lib/cli"
	"xenferry/lib/guard"
	"xenferry/lib/guest"
	"xenferry/lib/sim"
	"xenferry/lib/sim/simtest"
)

// TestPanic: what a command that panics had told its guardian is undone before the panic goes on.
func TestPanic(t *testing.T) {
	c := simtest.New(t, sim.Options{})
	spec := guest.Spec{UUID: uuid.New(), Kind: guest.PVH, VCPUs: 1, MaxPages: 1024}
	id, err := c.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	env := &cli.Env{Stderr: os.Stderr, Log: zerolog.Nop()}
	var passed any
	command := func(ctx context.Context) {
		defer func() { passed = recover() }()
		_, side, done, err := open(ctx, env, "sim:"+c.Path(), "")
		if err != nil {
			t.Error(err)
			return
		}
		defer done()
		if err := side.Guard.Tell(guard.State{UUID: spec.UUID, Domain: id, Destroy: true}); err != nil {
			t.Error(err)
		}
		panic("a fault")
	}
	command(t.Context())
	if passed == nil {
		t.Error("the panic went no further")
	}
	if d, err := c.Info(t.Context(), id); err == nil {
		t.Errorf("the half-built domain is left: %+v", d)
	}
}
