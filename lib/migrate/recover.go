package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"xenferry/lib/guest"
)

// settleTime is how long Recover waits for a hand-over that is under way, or for its guardian.
const settleTime = 70 * time.Second

// Ask asks the target of a record what became of its domain: Running, Refused, or an error if it cannot say.
type Ask func(ctx context.Context, r Record) (Step, error)

// RecoverTarget finishes what a receiver of domain id left behind on this host, and says which it is: Running, the domain is
// here and runs; or Refused, nothing of it is here. fs.ErrNotExist: no receiver on this side has
// ever had the domain whole.
func RecoverTarget(ctx context.Context, s *Side, id uuid.UUID) (Step, error) {
	j, err := openJournal(s.Folder, targetSide, id, false, settleTime)
	if err != nil {
		return "", err
	}
	defer func() { _ = j.close() }()
	if err := s.gone(j.last.Lock); err != nil {
		return "", err
	}
	d, err := s.find(ctx, id)
	if err != nil {
		return "", err
	}
	// A domain that has run was let run by the receiver's guardian, which did not get to write that.
	mine := j.last.Step == Owned || d != nil && d.EverUnpaused
	switch {
	case j.last.Step == Running, j.last.Step == Refused:
		return j.last.Step, nil
	case !mine:
		if d != nil {
			if err := s.Host.Destroy(ctx, d.ID); err != nil {
				return "", fmt.Errorf("half-built domain %d: %w", d.ID, err)
			}
		}
		return Refused, j.write(Refused, nil)
	case d == nil:
		return "", fmt.Errorf("domain %v was given to this host, and is no longer here", id)
	}
	if err := s.rename(ctx, d.ID, j.last.Name); err != nil {
		return "", err
	}
	if d.Paused {
		if err := Unpause(ctx, s.Host, *d); err != nil {
			return "", err
		}
	}
	return Running, j.write(Running, nil)
}

// RecoverSource finishes what a sender left behind on this host: the domain then runs here or is the target's. ask is
// asked only if the domain was given away. It returns Running if the target runs it, and Refused if it runs here, or is not
// here any more for another reason.
func RecoverSource(ctx context.Context, s *Side, id uuid.UUID, ask Ask) (Step, error) {
	j, err := openJournal(s.Folder, sourceSide, id, false, settleTime)
	if err != nil {
		return "", err
	}
	done := false
	defer func() {
		if done {
			_ = j.remove()
		} else {
			_ = j.close()
		}
	}()
	if err := s.gone(j.last.Lock); err != nil {
		return "", err
	}
	d, err := s.find(ctx, id)
	switch {
	case err != nil:
		return "", err
	case d == nil:
		done = true
		return Refused, nil
	case j.last.Step == Given && d.Suspended():
		step, err := ask(ctx, j.last)
		switch {
		case err != nil:
			return "", fmt.Errorf("domain %d stays suspended, as nobody knows whether %s runs it: %w", d.ID, j.last.Peer, err)
		case step == Running:
			done = true
			return Running, s.Host.Destroy(ctx, d.ID)
		case step != Refused:
			return "", fmt.Errorf("domain %d stays suspended: the target answered %q", d.ID, step)
		}
	}
	if d.LogDirty {
		err = s.Host.SetLogDirty(ctx, d.ID, false)
	}
	if d.Suspended() {
		err = errors.Join(err, Resume(ctx, s.Host, *d))
	}
	err = errors.Join(err, s.rename(ctx, d.ID, j.last.Name))
	done = err == nil
	return Refused, err
}

// Sources are the domains that a sender on this side left a journal of.
func Sources(folder string) (ids []uuid.UUID, err error) {
	names, err := filepath.Glob(filepath.Join(folder, "*."+sourceSide))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if id, err := uuid.Parse(strings.TrimSuffix(filepath.Base(name), "."+sourceSide)); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// find is the domain of a UUID on this host, nil if there is none.
func (s *Side) find(ctx context.Context, id uuid.UUID) (*guest.Info, error) {
	all, err := s.Host.Domains(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if d.UUID == id && !d.Dying {
			return &d, nil
		}
	}
	return nil, nil
}

// gone waits until nobody else has a lock any more: a process, or the guardian that undoes what it left.
func (s *Side) gone(name string) error {
	if name == "" || name == s.Lock {
		return nil
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // they ended in order
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := lock(f, settleTime); err != nil {
		return err
	}
	return os.Remove(name)
}
