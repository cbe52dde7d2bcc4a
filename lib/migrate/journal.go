package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/host"
)

// Step is how far a hand-over is, on one side.
type Step string

// The steps. Each is on the disk before what it speaks of happens.
const (
	Sending Step = "sending" // source: the domain is ours
	Given   Step = "given"   // source: GO is about to be sent; the domain is ours again only if the target says so

	Receiving Step = "receiving" // target: the domain is half-built, or complete and waits for GO; it is not ours
	Held      Step = "held"      // target: complete and paused, and stays so until the source is known to have given or kept it
	Owned     Step = "owned"     // target: GO has come, the domain is ours and shall run
	Returned  Step = "returned"  // target: it could not be let run, never ran, and is about to be destroyed
	Refused   Step = "refused"   // target: the domain did not run here, and nothing is left of it
	Running   Step = "running"   // target: the domain is ours, and the hand-over is over
	Forgotten Step = "forgotten" // target: and the source will not ask again

	Kept Step = "kept" // what a source answers, and never writes: the domain is not given, and will not be
)

// over reports whether nothing is left to do after a step, on its side.
func (s Step) over() bool { return s == Refused || s == Running || s == Forgotten }

// The two sides of a hand-over, as journals are called.
const (
	SourceSide = "source"
	TargetSide = "target"
)

// Record is a line of a journal.
type Record struct {
	Step   Step        `json:"step"`
	ID     uuid.UUID   `json:"hand_over"` // the same on both sides; Nil of one that xl sent
	UUID   uuid.UUID   `json:"uuid"`      // the domain's, and its number and own name on this side
	Domain guest.DomID `json:"domid"`
	Name   string      `json:"name"`
	Host   string      `json:"host"` // which of this machine's; see Side.Spec
	Peer   string      `json:"peer,omitempty"`
	Claim  uuid.UUID   `json:"claim,omitzero"`   // source: its own of the domain, see host.Lock
	Paused bool        `json:"paused,omitempty"` // target: ours, and shall stay paused
	Lock   string      `json:"lock"`             // a file that process and guardian keep locked while they live
	Time   time.Time   `json:"time"`

	Existing []guest.DomID `json:"existing,omitempty"` // target: domains that were there before, the source's own perhaps
}

// Journal is the record of one domain's hand-overs on one side: a file of lines of JSON. It is locked (flock) by who
// writes it; Record.Lock tells when its guardian is gone, too.
type Journal struct {
	file *os.File
	size int64 // of what was written whole
	all  []Record
	last Record

	domain *host.Lock // while it is recovered: its domain's
}

// openJournal opens the journal of a domain in folder for a side, and makes it if create. It waits for the lock at most for
// wait; os.ErrDeadlineExceeded says that somebody has it.
func openJournal(ctx context.Context, folder, side string, id uuid.UUID, create bool, wait time.Duration) (*Journal, error) {
	flags := os.O_RDWR | os.O_APPEND
	if create {
		flags |= os.O_CREATE
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
	}
	name := filepath.Join(folder, id.String()+"."+side)
	f, err := openLocked(ctx, name, flags, wait)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{file: f}
	if err = j.read(); err == nil && create {
		err = syncFolder(folder)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", name, err), f.Close())
	}
	return j, nil
}

// openLocked opens a file and locks it, waiting at most for wait. Who had the lock may have removed the file: then it
// opens again.
func openLocked(ctx context.Context, name string, flags int, wait time.Duration) (*os.File, error) {
	for {
		f, err := os.OpenFile(name, flags, 0o600)
		if err != nil {
			return nil, err
		}
		var st unix.Stat_t
		if err = lock(ctx, f, wait); err == nil {
			err = unix.Fstat(int(f.Fd()), &st)
		}
		if err == nil && st.Nlink > 0 {
			return f, nil
		}
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
}

// lock locks f, waiting at most for wait.
func lock(ctx context.Context, f *os.File, wait time.Duration) error {
	for end := time.Now().Add(wait); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: %w", ErrBusy, os.ErrDeadlineExceeded)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits, until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func syncFolder(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// parse takes the lines of a journal that were written whole, and how many octets they have.
func parse(b []byte) (all []Record, whole int, err error) {
	whole = bytes.LastIndexByte(b, '\n') + 1
	for line := range bytes.Lines(b[:whole]) {
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, whole, fmt.Errorf("line %d: %w", len(all)+1, err)
		}
		all = append(all, r)
	}
	return all, whole, nil
}

// read takes what is there, and removes what was not written whole behind it.
func (j *Journal) read() error {
	b, err := io.ReadAll(j.file)
	if err != nil {
		return err
	}
	all, whole, err := parse(b)
	if err == nil && whole < len(b) {
		err = j.file.Truncate(int64(whole))
	}
	j.size = int64(whole)
	if j.all = all; len(all) > 0 {
		j.last = all[len(all)-1]
	}
	return err
}

// of is the last record of a hand-over.
func (j *Journal) of(id uuid.UUID) (Record, bool) {
	for _, r := range slices.Backward(j.all) {
		if r.ID == id {
			return r, true
		}
	}
	return Record{}, false
}

// write records a step, on the disk when it returns.
func (j *Journal) write(step Step, change func(*Record)) error {
	at("record " + string(step))
	r := j.last
	r.Step, r.Time = step, time.Now().UTC()
	if change != nil {
		change(&r)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	n, err := j.file.Write(append(b, '\n'))
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil { // a part of a line would take the next one with it
		return errors.Join(fmt.Errorf("journal %s: %w", j.file.Name(), err), j.file.Truncate(j.size))
	}
	j.size += int64(n)
	j.last, j.all = r, append(j.all, r)
	at("recorded " + string(step))
	return nil
}

// close lets go of the journal; a remove takes it away first.
func (j *Journal) close() error {
	j.release()
	return j.file.Close()
}

// release lets go of the domain.
func (j *Journal) release() {
	if j.domain != nil {
		j.domain.Release()
		j.domain = nil
	}
}

func (j *Journal) remove() error {
	err := os.Remove(j.file.Name())
	if err == nil {
		err = syncFolder(filepath.Dir(j.file.Name()))
	}
	return errors.Join(err, j.close())
}

// forget ends a target's hand-over of which the source will not ask again. The journal goes unless another one's source may.
func (j *Journal) forget() error {
	for _, r := range j.all {
		if last, _ := j.of(r.ID); r.ID != j.last.ID && last.Step != Forgotten {
			return errors.Join(j.write(Forgotten, nil), j.close())
		}
	}
	return j.remove()
}

// begin opens a journal for writing with its first step; none if the side keeps none. An earlier hand-over of the domain
// that is not over is an error.
func (s *Side) begin(ctx context.Context, side string, step Step, r Record) error {
	if s.Folder == "" {
		return nil
	}
	Prune(s.Folder, s.Log)
	j, err := openJournal(ctx, s.Folder, side, r.UUID, true, guardTime) // as long as a look by Prune takes
	if err != nil {
		return err
	}
	switch last := j.last; {
	case last.Step == Given || last.Step == Held || last.Step == Owned || last.Step == Returned:
		err = fmt.Errorf("journal %s: an earlier hand-over of the domain is not over (%s, %s): xl-stream recover", j.file.Name(), last.Step,
			last.Time.Format(time.DateTime))
	case last.Step == Sending: // its process was killed
		err = s.gone(ctx, last.Lock, guardTime)
	case last.Step == Receiving: // and left half of a domain
		if err = s.gone(ctx, last.Lock, guardTime); err == nil {
			_, err = s.finishTarget(ctx, j, "", nil)
			j.release()
		}
	}
	if err == nil {
		s.journal = j
		r.Lock, r.Host = s.Lock, hostName(s.Spec)
		err = s.step(step, func(last *Record) {
			r.Step, r.Time = last.Step, last.Time
			*last = r
		})
	}
	if err != nil {
		s.journal = nil
		return errors.Join(err, j.close())
	}
	return nil
}

// step records a step, if there is a journal.
func (s *Side) step(step Step, change func(*Record)) error {
	if s.journal == nil {
		return nil
	}
	return s.journal.write(step, change)
}

// end lets go of the journal in one of its ways: close, remove or forget.
func (s *Side) end(how func(*Journal) error) {
	j := s.journal
	if s.journal = nil; j == nil {
		return
	}
	if err := how(j); err != nil {
		s.Log.Warn().Err(err).Msg("journal")
	}
}
