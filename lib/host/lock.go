package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/sim"
)

// Lock is the right to save, resume or destroy a domain, among these programs on this host. On Xen nothing else keeps two
// savers apart: the second takes the log of dirty pages away from the first, whose image then lacks pages.
type Lock struct{ file *os.File }

const (
	guardTime = time.Minute            // how long the guardian of a process that was killed may take
	deathTime = 500 * time.Millisecond // how long a process that was killed may be seen to run
)

// LockDomain takes the lock of a domain: an flock on a file that holds the process's number, domain-ID.lock in /run/xenferry,
// or SOCKET.lock-ID beside the socket of a simulated host. Who inherits File holds it too. One whose process is gone is held by
// its guardian, and waited for; that of the caller's parent is the caller's as well, and needs no other. A host without a place
// for such files has no locks, which is told in the log.
func LockDomain(ctx context.Context, h Host, id guest.DomID, log zerolog.Logger) (*Lock, error) {
	name, err := lockName(h, id)
	if err != nil {
		log.Warn().Err(err).Msgf("domain %d cannot be locked: see to it that nobody else saves it", id)
		return &Lock{}, nil
	}
	for began := time.Now(); ; {
		file, holder, err := tryLock(name)
		switch {
		case err != nil:
			log.Warn().Err(err).Msgf("domain %d cannot be locked: see to it that nobody else saves it", id)
			return &Lock{}, nil
		case file != nil:
			return &Lock{file}, nil
		case holder == os.Getppid():
			return &Lock{}, nil
		case alive(holder) && time.Since(began) > deathTime:
			return nil, fmt.Errorf("process %d is at work on domain %d (it holds %s)", holder, id, name)
		case time.Since(began) > guardTime:
			return nil, fmt.Errorf("domain %d is held by what process %d left behind (%s)", id, holder, name)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// File is for the guardian to inherit; nil where there is none.
func (l *Lock) File() *os.File { return l.file }

// Release gives the lock up. No guardian may have it any more.
func (l *Lock) Release() {
	if l.file != nil {
		_ = os.Remove(l.file.Name())
		_ = l.file.Close()
	}
}

// lockName is where the lock of a domain is. Its folder is made.
func lockName(h Host, id guest.DomID) (string, error) {
	if c, ok := h.(*sim.Client); ok {
		return fmt.Sprintf("%s.lock-%d", c.Path(), id), nil
	}
	for _, run := range []string{"/run", "/var/run"} {
		if fi, err := os.Stat(run); err != nil || !fi.IsDir() {
			continue
		}
		folder := filepath.Join(run, "xenferry")
		if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
		return filepath.Join(folder, fmt.Sprintf("domain-%d.lock", id)), nil
	}
	return "", errors.New("there is no folder /run")
}

// tryLock locks the file of that name, or tells which process's number is in it.
func tryLock(name string) (locked *os.File, holder int, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if locked == nil {
			_ = f.Close()
		}
	}()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		b, err := io.ReadAll(io.LimitReader(f, 20))
		holder, _ = strconv.Atoi(strings.TrimSpace(string(b))) // nothing yet, if it was locked just now
		return nil, holder, err
	case err != nil:
		return nil, 0, fmt.Errorf("lock %s: %w", name, err)
	}
	// Its last holder may have removed it meanwhile: then it is nobody's.
	now, err := os.Stat(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, 0, err
	}
	if mine, e := f.Stat(); e != nil || err != nil || !os.SameFile(mine, now) {
		return nil, 0, e
	}
	if err := f.Truncate(0); err != nil {
		return nil, 0, err
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, 0, err
	}
	return f, 0, nil
}

// alive reports whether a process runs. One that has ended and was not waited for does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}
