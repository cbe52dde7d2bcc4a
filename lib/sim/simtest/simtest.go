// Package simtest gives tests simulated hosts in their own process.
package simtest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/sim"
)

// DefaultMemory is a host's machine memory, in octets, unless the options say how much.
const DefaultMemory = 256 << 20

// New serves a host until the test ends and returns a client of it.
func New(t testing.TB, o sim.Options) *sim.Client {
	_, c := NewServer(t, o)
	return c
}

// NewServer is New with the server, whose socket is at c.Path.
func NewServer(t testing.TB, o sim.Options) (*sim.Server, *sim.Client) {
	t.Helper()
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	s, err := sim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: a socket's path has at most 107 octets, and tests have long names.
	dir, err := os.MkdirTemp("", "sim")
	if err != nil {
		t.Fatal(err)
	}
	l, err := sim.Listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close the machine: %v", err)
		}
		os.RemoveAll(dir)
	})
	return s, Dial(t, filepath.Join(dir, "s"))
}

// Dial is a client of the server at path until the test ends.
func Dial(t testing.TB, path string) *sim.Client {
	t.Helper()
	c, err := sim.Dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Domain makes a domain of a kind with room for pages, and no memory yet.
func Domain(t testing.TB, c *sim.Client, kind guest.Kind, vcpus uint32, pages uint64) guest.DomID {
	t.Helper()
	id, err := c.Create(context.Background(), guest.Spec{Kind: kind, VCPUs: vcpus, MaxPages: pages})
	if err != nil {
		t.Fatal(err)
	}
	return id
}
