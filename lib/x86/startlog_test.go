package x86

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// logHost is a host as Xen is: it refuses to begin a log that is on, and does not tell whose it is.
type logHost struct {
	Host
	on bool
}

func (h *logHost) SetLogDirty(_ context.Context, _ guest.DomID, on bool) error {
	if on && h.on {
		return unix.EINVAL
	}
	h.on = on
	return nil
}

// TestStartLog: a log that is on is begun anew for a toolstack, which knows whose it is; without one it may be another save's, which
// would lose pages, but for a display's.
func TestStartLog(t *testing.T) {
	for _, kind := range []guest.Kind{guest.PV64, guest.PV32, guest.PVH, guest.HVM} {
		for _, alone := range []bool{false, true} {
			h := &logHost{on: true}
			s := &saving{host: h, info: guest.Info{ID: 5, Kind: kind}}
			if alone {
				s.Alone()
			}
			err := s.StartLog(t.Context())
			switch refused := alone && kind != guest.HVM; {
			case refused && (!errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "xc-save --resume 5")):
				t.Errorf("%v, alone: %v", kind, err)
			case !refused && err != nil:
				t.Errorf("%v, alone %v: %v", kind, alone, err)
			case !h.on:
				t.Errorf("%v, alone %v: the log is off", kind, alone)
			}
			h.on = false
			if err := s.StartLog(t.Context()); err != nil {
				t.Errorf("%v: a log that was off: %v", kind, err)
			}
		}
	}
}
