package host_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/host"
	"xenferry/lib/host/hosttest"
)

// TestXen runs the suite over the Xen under this control domain. Build the test with "go test -c", and run it there with
// XENFERRY_TEST_XEN=1. It is made for the machines of the lab, whose Xen lacks 32-bit PV, and their processor XSAVE
// and RDTSCP.
func TestXen(t *testing.T) {
	if os.Getenv("XENFERRY_TEST_XEN") == "" {
		t.Skip("needs a control domain of Xen: set XENFERRY_TEST_XEN=1 in one")
	}
	open := func(t *testing.T) host.Host {
		h, err := host.Open(t.Context(), "xen", zerolog.New(zerolog.NewTestWriter(t)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	lacks := []hosttest.Lack{hosttest.LogOfMappings, hosttest.Refusals, hosttest.PV32, hosttest.Processor}
	if !logsPV(t, open(t)) {
		lacks = append(lacks, hosttest.LogOfPV)
	}
	hosttest.Run(t, open, lacks...)
}

// logsPV reports whether a Xen has shadow paging, without which it cannot log what PV domains write.
func logsPV(t *testing.T, h host.Host) bool {
	id, err := h.Create(t.Context(), guest.Spec{Name: "probe", UUID: uuid.New(), Kind: guest.PV64, VCPUs: 1, MaxPages: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Destroy(context.WithoutCancel(t.Context()), id) }()
	err = h.SetLogDirty(t.Context(), id, true)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		t.Fatal(err)
	}
	return err == nil
}
