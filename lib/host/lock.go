package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/sim"
)

// Lock is the right to save, resume or destroy a domain, among these programs on this host. On Xen nothing else keeps two
// savers apart: the second takes the log of dirty pages away from the first, whose image then lacks pages.
type Lock struct {
	file   *os.File // nil where there is no lock
	claim  uuid.UUID
	exists func() bool // the domain
}

const (
	guardTime = time.Minute            // how long the guardian of a process that was killed may take
	deathTime = 500 * time.Millisecond // how long a process that was killed may be seen to run
)

// LockDomain takes the lock of a domain: an flock on a file, domain-ID.lock in /run/xenferry, or SOCKET.lock-ID beside the socket of
// a simulated host. In it are the process's number and the last claim, and a line feed. Who inherits File holds it too. One whose process is gone is held by
// its guardian, and waited for; that of the caller's parent is the caller's as well, and needs no other. A host without a place
// for such files has no locks, which is told in the log.
func LockDomain(ctx context.Context, h Host, id guest.DomID, log zerolog.Logger) (*Lock, error) {
	name, err := lockName(h, id)
	if err != nil {
		log.Warn().Err(err).Msgf("domain %d cannot be locked: see to it that nobody else saves it", id)
		return &Lock{}, nil
	}
	for began := time.Now(); ; {
		file, holder, claim, err := tryLock(name)
		switch {
		case err != nil:
			log.Warn().Err(err).Msgf("domain %d cannot be locked: see to it that nobody else saves it", id)
			return &Lock{}, nil
		case file != nil:
			exists := func() bool {
				_, err := h.Info(context.WithoutCancel(ctx), id)
				return !errors.Is(err, fs.ErrNotExist)
			}
			return &Lock{file, claim, exists}, nil
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

// Claim says that from now on the domain's state is this process's work, whatever others left to be done before. It is a new
// number, which stays in the file until the next claim, or the domain is gone; uuid.Nil where there is no lock.
func (l *Lock) Claim() (uuid.UUID, error) {
	if l.file == nil {
		return uuid.Nil, nil
	}
	claim := uuid.New()
	if err := sign(l.file, claim); err != nil {
		return uuid.Nil, fmt.Errorf("claim the domain: %w", err)
	}
	l.claim = claim
	return claim, nil
}

// Claimed is the last claim; uuid.Nil for none.
func (l *Lock) Claimed() uuid.UUID { return l.claim }

// Release gives the lock up. No guardian may have it any more.
func (l *Lock) Release() {
	if l.file == nil {
		return
	}
	if l.claim == uuid.Nil || !l.exists() {
		_ = os.Remove(l.file.Name())
	}
	_ = l.file.Close()
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

// sign writes this process's number and a claim into a lock's file.
func sign(f *os.File, claim uuid.UUID) error {
	_, err := f.WriteAt(fmt.Appendf(nil, "%10d %v\n", os.Getpid(), claim), 0) // of one length, so never half another's
	return err
}

// signature is what is in a lock's file: zeros if nothing is yet.
func signature(f *os.File) (pid int, claim uuid.UUID, err error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 64))
	words := append(strings.Fields(string(b)), "", "")
	pid, _ = strconv.Atoi(words[0])
	claim, _ = uuid.Parse(words[1])
	return pid, claim, err
}

// tryLock locks the file of that name, or tells which process's number is in it.
func tryLock(name string) (locked *os.File, holder int, claim uuid.UUID, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, 0, claim, err
	}
	defer func() {
		if locked == nil {
			_ = f.Close()
		}
	}()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		holder, _, err = signature(f)
		return nil, holder, claim, err
	case err != nil:
		return nil, 0, claim, fmt.Errorf("lock %s: %w", name, err)
	}
	// Its last holder may have removed it meanwhile: then it is nobody's.
	now, err := os.Stat(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, 0, claim, err
	}
	if mine, e := f.Stat(); e != nil || err != nil || !os.SameFile(mine, now) {
		return nil, 0, claim, e
	}
	if _, claim, err = signature(f); err == nil {
		err = sign(f, claim)
	}
	if err != nil {
		return nil, 0, claim, err
	}
	return f, 0, claim, nil
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
