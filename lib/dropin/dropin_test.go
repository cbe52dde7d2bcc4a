package dropin

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"xenferry/lib/cli"
	"xenferry/lib/record"
	"xenferry/lib/xen"
)

// TestErrno: what libxl logs of a failure.
func TestErrno(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want unix.Errno
	}{
		{fmt.Errorf("write: %w", unix.ENOSPC), unix.ENOSPC},
		{fmt.Errorf("restore: %w", &cli.Interrupted{Signal: unix.SIGTERM}), unix.EINTR},
		{fmt.Errorf("libxc stream: %w", record.ErrOrder), unix.EBADMSG},
		{fmt.Errorf("open Xen: %w", xen.ErrUnknown), unix.EOPNOTSUPP},
		{errors.New("anything else"), unix.EIO},
	} {
		if got := errnoOf(tt.err); got != int32(tt.want) {
			t.Errorf("%v: %d, want %d (%v)", tt.err, got, tt.want, tt.want)
		}
	}
}

// TestSurvive: a panic is an error, for libxl to be told.
func TestSurvive(t *testing.T) {
	o := &operation{log: zerolog.Nop()} // without a call
	err := o.survive(t.Context())
	if err == nil || !strings.Contains(err.Error(), "panic") || errnoOf(err) == 0 {
		t.Errorf("%v, errno %d", err, errnoOf(err))
	}
}
