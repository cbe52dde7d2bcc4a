package host_test

import (
	"os"
	"testing"

	"github.com/rs/zerolog"

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
	hosttest.Run(t, func(t *testing.T) host.Host {
		h, err := host.Open(t.Context(), "xen", zerolog.New(zerolog.NewTestWriter(t)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}, hosttest.LogOfMappings, hosttest.Refusals, hosttest.PV32, hosttest.Processor)
}
