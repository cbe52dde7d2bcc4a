package host_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/host"
	"xenferry/lib/sim"
	"xenferry/lib/sim/simtest"
)

// TestLockDomain: a domain is locked for as long as the file is open anywhere, and whoever comes too late learns by whom.
func TestLockDomain(t *testing.T) {
	c := simtest.New(t, sim.Options{})
	name := c.Path() + ".lock-3"
	take := func(ctx context.Context) (*host.Lock, error) { return host.LockDomain(ctx, c, 3, zerolog.Nop()) }
	first, err := take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("process %d is at work on domain 3 (it holds %s)", os.Getpid(), name)
	if _, err := take(t.Context()); err == nil || err.Error() != want {
		t.Errorf("a second time: %v; want %s", err, want)
	}
	if other, err := host.LockDomain(t.Context(), c, 4, zerolog.Nop()); err != nil {
		t.Errorf("another domain: %v", err)
	} else {
		other.Release()
	}

	// The process is gone, and its guardian has the file: it is waited for.
	guardian, err := unix.Dup(int(first.File().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, fmt.Appendln(nil, gone.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := first.File().Close(); err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := take(impatient); !errors.Is(err, enough) {
		t.Errorf("while its guardian is at work: %v", err)
	}
	taken := make(chan error)
	go func() {
		l, err := take(t.Context())
		if err == nil {
			l.Release()
		}
		taken <- err
	}()
	if err := unix.Close(guardian); err != nil {
		t.Fatal(err)
	}
	if err := <-taken; err != nil {
		t.Errorf("after its guardian: %v", err)
	}
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after its release the file is there: %v", err)
	}

	// A process's child may do what it does; and what cannot be locked is told, and done.
	held, err := take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, fmt.Appendln(nil, os.Getppid()), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := take(t.Context()); err != nil || l.File() != nil {
		t.Errorf("held by the parent: %v, %v", l, err)
	}
	held.Release()
	if err := os.Symlink("/dev/null", name); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	if l, err := host.LockDomain(t.Context(), c, 3, zerolog.New(&log)); err != nil || l.File() != nil || !strings.Contains(log.String(), "cannot be locked") {
		t.Errorf("a link in the file's place: %v, %v, %q", l, err, log.String())
	}
}

// TestClaim: the last claim is known to whoever locks the domain later, for as long as that exists.
func TestClaim(t *testing.T) {
	c := simtest.New(t, sim.Options{})
	id, err := c.Create(t.Context(), guest.Spec{Kind: guest.PVH, VCPUs: 1, MaxPages: 16})
	if err != nil {
		t.Fatal(err)
	}
	take := func() *host.Lock {
		t.Helper()
		l, err := host.LockDomain(t.Context(), c, id, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	var last uuid.UUID
	for i := range 3 {
		l := take()
		if l.Claimed() != last {
			t.Errorf("before claim %d: %v, want %v", i, l.Claimed(), last)
		}
		if last, err = l.Claim(); err != nil || last == uuid.Nil || l.Claimed() != last {
			t.Errorf("claim %d: %v, %v, then %v", i, last, err, l.Claimed())
		}
		l.Release()
		take().Release() // who claims nothing changes nothing
	}
	l := take()
	if err := c.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	l.Release()
	if left, _ := filepath.Glob(c.Path() + ".lock-*"); len(left) > 0 {
		t.Errorf("the domain is gone, and %v there", left)
	}
}
