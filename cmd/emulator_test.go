package cmd_test

import (
	"testing"

	"xenferry/lib/guest"
	"xenferry/lib/qmp"
)

// emulates reports whether the emulator of a domain runs.
func (h *simHost) emulates(t *testing.T, id guest.DomID) bool {
	t.Helper()
	c, err := qmp.Dial(t.Context(), h.QMPSocket(id))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	var status struct{ Running bool }
	if err := c.Call(t.Context(), "query-status", nil, &status); err != nil {
		t.Fatal(err)
	}
	return status.Running
}
