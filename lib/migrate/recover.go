package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"

	"xenferry/lib/emulator"
	"xenferry/lib/guest"
	"xenferry/lib/host"
)

// How long Recover waits for a hand-over that is under way, or for its guardian, here or on the other side; an answer to the
// other side; and a new hand-over for the guardian of one whose process was killed.
const (
	settleTime = 130 * time.Second
	answerTime = 2 * time.Second
	guardTime  = 2 * time.Second
)

// breakTime is the mean of how long Recover lets go of its journal between two questions. Two that recover at once each wait for
// the other's journal: who sleeps longer is asked.
const breakTime = 3 * time.Second

// ErrBusy says that somebody has the record of a hand-over, on this side or, of an answer, on the other.
var ErrBusy = errors.New("a hand-over is under way")

// ErrUnknown says that this side has no record of a hand-over, ErrPeerUnknown that the other has none, or is the wrong one to ask.
var (
	ErrUnknown     = errors.New("nothing is recorded here of this hand-over")
	ErrPeerUnknown = errors.New("nothing is recorded there of this hand-over")
)

// Ask tells the other side of a record what this side knows of the hand-over, and asks what the other does, after it
// finished what it can.
//
// A source says Given or Kept, and the target answers Running or Refused; or Sending, if it has lost a domain that was not
// given; or Forgotten, as nothing is left to ask.
// A target says Held, and the source answers Given or Kept. The error is that the other side cannot be asked or cannot tell;
// ErrBusy, that it cannot yet; ErrPeerUnknown, that it knows nothing.
type Ask func(ctx context.Context, r Record, says Step) (Step, error)

// RecoverTarget finishes what a receiver left behind on this host, and says which it is: Running, the domain is
// ours; or Refused, nothing of it is here. says is what the source says, as with Ask; if that is not known, "", and the domain
// is held, ask is asked. ErrUnknown: no receiver on this side ever began to make the domain. Who says something waits for
// an answer: then it may be ErrBusy.
func RecoverTarget(ctx context.Context, s *Side, domain, id uuid.UUID, says Step, ask Ask) (Step, error) {
	if says != "" {
		return recoverTarget(ctx, s, domain, id, says, answerTime, nil)
	}
	return settled(ctx, func() (Step, error) { return recoverTarget(ctx, s, domain, id, "", settleTime, ask) })
}

// settled asks the other side, after what this one has to do for that, as often as it is busy.
func settled(ctx context.Context, asks func() (Step, error)) (Step, error) {
	for end := time.Now().Add(settleTime); ; {
		step, err := asks()
		if !errors.Is(err, ErrBusy) || time.Now().After(end) {
			return step, err
		}
		if err := pause(ctx, breakTime/2+rand.N(breakTime)); err != nil {
			return "", err
		}
	}
}

func recoverTarget(ctx context.Context, s *Side, domain, id uuid.UUID, says Step, wait time.Duration, ask Ask) (Step, error) {
	j, err := s.openSettled(ctx, TargetSide, domain, wait)
	if err != nil {
		return "", err
	}
	end := j.close
	defer func() { _ = end() }()
	r, ok := j.of(id)
	switch {
	case !ok:
		return "", ErrUnknown
	case r.Step == Forgotten:
		return Running, nil
	case r.Step.over() && j.last.ID == id && says == Forgotten:
		end = j.forget
		return r.Step, nil
	case r.Step.over():
		return r.Step, nil
	}
	step, err := s.finishTarget(ctx, j, says, ask)
	if err == nil && step == Refused && says == Kept {
		end = j.forget // the source will not ask again
	}
	return step, err
}

// finishTarget finishes the last hand-over of a target's journal.
func (s *Side) finishTarget(ctx context.Context, j *Journal, says Step, ask Ask) (Step, error) {
	d, err := s.take(ctx, j, func(d guest.Info) bool { return d.UUID == j.last.UUID && !slices.Contains(j.last.Existing, d.ID) })
	if err != nil {
		return "", err
	}
	if j.last.Step == Held && d != nil {
		if says == "" {
			if says, err = ask(ctx, j.last, Held); err != nil {
				return "", fmt.Errorf("domain %d stays paused, as nobody knows whether its source has given it: %w", d.ID, err)
			}
		}
		switch says {
		case Given:
			if err := j.write(Owned, nil); err != nil {
				return "", err
			}
		case Kept:
			if err := j.write(Returned, nil); err != nil {
				return "", err
			}
		default:
			return "", fmt.Errorf("domain %d stays paused: the source answered %q", d.ID, says)
		}
	}
	if j.last.Step != Owned {
		return Refused, s.drop(ctx, j, d)
	}
	if d == nil {
		return "", fmt.Errorf("domain %v was given to this host, and is no longer here: it may have run", j.last.UUID)
	}
	if err := s.rename(ctx, d.ID, j.last.Name); err != nil {
		return "", err
	}
	if d.Paused && !j.last.Paused {
		err := host.Alone(ctx, s.Host, d.ID, d.UUID)
		if err == nil {
			err = Unpause(ctx, s.Host, *d)
		}
		if err != nil {
			return "", fmt.Errorf("domain %d is this host's, and stays paused: %w", d.ID, err)
		}
	}
	return Running, j.write(Running, nil)
}

// drop destroys a domain, unless it is gone, that the target may not let run.
func (s *Side) drop(ctx context.Context, j *Journal, d *guest.Info) error {
	if d != nil && d.EverUnpaused {
		return fmt.Errorf("domain %d has run, though it was not given to this host: look whether it runs at the source, too", d.ID)
	}
	if d != nil {
		if err := s.destroy(ctx, d.ID); err != nil {
			return fmt.Errorf("half-built domain %d: %w", d.ID, err)
		}
	}
	return j.write(Refused, nil)
}

// RecoverSource finishes what a sender left behind on this host: the domain then runs here, or is the target's. ask is
// asked if it was given away, and told in any case. It returns Running if the target runs it, Kept if it runs here, and
// Refused if neither side has it.
func RecoverSource(ctx context.Context, s *Side, domain uuid.UUID, ask Ask) (Step, error) {
	return settled(ctx, func() (Step, error) { return recoverSource(ctx, s, domain, ask) })
}

func recoverSource(ctx context.Context, s *Side, domain uuid.UUID, ask Ask) (Step, error) {
	j, d, err := s.openSource(ctx, domain, settleTime)
	if err != nil {
		return "", err
	}
	end := j.close
	defer func() { _ = end() }()
	r := j.last
	if r.Step == Given && (d == nil || d.Suspended()) {
		step, err := ask(ctx, r, Given)
		switch {
		case err != nil:
			return "", fmt.Errorf("domain %v stays suspended, as nobody knows whether %s runs it: %w", r.UUID, r.Peer, err)
		case step == Running:
			switch {
			case d == nil:
			case j.disowned():
				s.leave(d)
			default:
				if err := s.destroy(ctx, d.ID); err != nil {
					return "", err
				}
			}
			end = func() error { return nil }
			if err := j.remove(); err != nil { // before the target forgets what it would be asked
				return "", err
			}
			_, _ = ask(ctx, r, Forgotten) // else it remembers for a while
			return Running, nil
		case step != Refused:
			return "", fmt.Errorf("domain %v stays suspended: the target answered %q", r.UUID, step)
		}
	}
	if r.Step == Sending && d == nil { // the machine was gone, or somebody has destroyed it: a copy that is held is the last
		step, err := ask(ctx, r, Sending)
		if err != nil { // who knows nothing may be the wrong one, and the right one have the last copy
			return "", fmt.Errorf("domain %v was not given to %s, and is no longer here: %w", r.UUID, r.Peer, err)
		}
		end = j.remove
		return step, nil
	}
	if err := s.runHere(ctx, r, d, !j.disowned()); err != nil {
		return "", err
	}
	end = func() error { return nil }
	if err := j.remove(); err != nil { // before the target is told: it may have to ask
		return "", err
	}
	switch step, err := TellKept(ctx, r, ask); {
	case errors.Is(err, ErrPeerUnknown):
	case err != nil:
		s.Log.Warn().Err(err).Msgf("domain %v: %s may hold a copy, paused, until it recovers", r.UUID, r.Peer)
	case step == Running:
		return "", fmt.Errorf("domain %v runs here, and also at %s", r.UUID, r.Peer)
	}
	return Kept, nil
}

// TellKept tells a target, which may hold the domain of a source's record, that it runs at the source. The answer is as with Ask.
func TellKept(ctx context.Context, r Record, ask Ask) (Step, error) {
	return settled(ctx, func() (Step, error) { return ask(ctx, r, Kept) })
}

// AnswerSource says what a source did with a domain in hand-over id, whose target asks: Given, or Kept and it runs here.
// What was never begun, or is over, was not given: a target that holds a domain has not run it, and the source's journal goes
// only once the target has, or the domain runs here. But then it must do so still: a host that has neither journal nor domain
// may be the wrong one, or have lost both, which is ErrUnknown. ErrBusy: it cannot say yet.
func AnswerSource(ctx context.Context, s *Side, domain, id uuid.UUID) (Step, error) {
	j, d, err := s.openSource(ctx, domain, answerTime)
	if errors.Is(err, ErrUnknown) {
		runs, e := s.find(ctx, func(d guest.Info) bool { return d.UUID == domain && d.EverUnpaused && !d.Shutdown })
		if runs != nil || e != nil {
			return Kept, e
		}
	}
	if err != nil {
		return "", err
	}
	end := j.close
	defer func() { _ = end() }()
	switch r := j.last; {
	case r.ID != id:
		return Kept, nil
	case r.Step == Given && (d == nil || d.Suspended()):
		return Given, nil
	}
	if err := s.runHere(ctx, j.last, d, !j.disowned()); err != nil {
		return "", err
	}
	end = j.remove
	return Kept, nil
}

// disowned reports whether somebody else has claimed the domain of a hand-over since: saved it, perhaps, and left it suspended
// for the image to run elsewhere.
func (j *Journal) disowned() bool {
	return j.domain != nil && j.last.Claim != uuid.Nil && j.domain.Claimed() != j.last.Claim
}

// leave says that a disowned domain is not this program's to touch.
func (s *Side) leave(d *guest.Info) {
	s.Log.Warn().Msgf("domain %d is suspended, and somebody has worked on it since the hand-over, who may have saved it: it is left as it is", d.ID)
}

// runHere lets a domain run on at the source, its own.
func (s *Side) runHere(ctx context.Context, r Record, d *guest.Info, ours bool) (err error) {
	if d == nil {
		return fmt.Errorf("domain %v was not given to %s, and is no longer here", r.UUID, r.Peer)
	}
	if d.Suspended() && !ours {
		s.leave(d)
		return nil
	}
	err = s.Host.SetLogDirty(ctx, d.ID, false) // on Xen only who began a log can tell that it is on
	if e := emulator.Open(s.Host, *d); e != nil {
		if e := e.SetDirtyLog(ctx, false); e != nil { // an emulator that is gone has no log
			s.Log.Warn().Err(e).Msgf("domain %d: the emulator's log of dirty pages may be on", d.ID)
		}
	}
	if d.Suspended() {
		err = errors.Join(err, Resume(ctx, s.Host, *d))
	}
	return errors.Join(err, s.rename(ctx, d.ID, r.Name))
}

// openSource opens a source's journal, and finds its domain.
func (s *Side) openSource(ctx context.Context, domain uuid.UUID, wait time.Duration) (*Journal, *guest.Info, error) {
	j, err := s.openSettled(ctx, SourceSide, domain, wait)
	if err != nil {
		return nil, nil, err
	}
	d, err := s.take(ctx, j, func(d guest.Info) bool { return d.UUID == domain && d.ID == j.last.Domain })
	if err != nil {
		return nil, nil, errors.Join(err, j.close())
	}
	return j, d, nil
}

// openSettled opens a journal of this host once its writer and the guardian are gone. ErrUnknown: there is none.
func (s *Side) openSettled(ctx context.Context, side string, domain uuid.UUID, wait time.Duration) (*Journal, error) {
	j, err := openJournal(ctx, s.Folder, side, domain, false, wait)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(ErrUnknown, err)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case len(j.all) == 0: // killed before it did anything
		err = errors.Join(ErrUnknown, os.Remove(j.file.Name()))
	case j.last.Host != hostName(s.Spec):
		err = fmt.Errorf("journal %s: it is of host %s, not of %s", j.file.Name(), j.last.Host, hostName(s.Spec))
	default:
		err = s.gone(ctx, j.last.Lock, wait)
	}
	if err != nil {
		return nil, errors.Join(err, j.close())
	}
	return j, nil
}

// take finds a domain, as find does, and takes its lock until the journal is closed: since the hand-over somebody else may have begun
// to work on it.
func (s *Side) take(ctx context.Context, j *Journal, wanted func(guest.Info) bool) (*guest.Info, error) {
	d, err := s.find(ctx, wanted)
	if err != nil || d == nil || s.DomainLock != nil {
		return d, err
	}
	if j.domain, err = host.LockDomain(ctx, s.Host, d.ID, s.Log); err != nil {
		return nil, err
	}
	return s.find(ctx, wanted) // who had the lock may have changed it
}

// find is the domain that is what is wanted, nil if there is none. On a host that is source and target a UUID alone means two.
func (s *Side) find(ctx context.Context, wanted func(guest.Info) bool) (*guest.Info, error) {
	all, err := s.Host.Domains(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if !d.Dying && wanted(d) {
			return &d, nil
		}
	}
	return nil, nil
}

// Now says in words what a domain of a hand-over that is over does on this side, whose it is: "runs", or why it does not.
func (s *Side) Now(ctx context.Context, r Record) string {
	d, err := s.find(ctx, func(d guest.Info) bool { return d.UUID == r.UUID && d.Name == r.Name })
	switch {
	case err != nil:
		return "may run"
	case d == nil:
		return "is no longer"
	}
	return d.State()
}

// gone waits until nobody else has a lock any more: a process, or the guardian that undoes what it left.
func (s *Side) gone(ctx context.Context, name string, wait time.Duration) error {
	if name == "" || name == s.Lock {
		return nil
	}
	f, err := openLocked(ctx, name, os.O_RDWR, wait)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // they ended in order
	}
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(name), f.Close())
}
