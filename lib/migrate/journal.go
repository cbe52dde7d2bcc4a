package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// Step is how far a hand-over is, on one side.
type Step string

// The steps. Each is on the disk before what it speaks of happens.
const (
	Sending   Step = "sending"   // source: the domain is ours
	Given     Step = "given"     // source: GO is about to be sent; the domain is ours again only if the target says so
	Receiving Step = "receiving" // target: the domain is half-built, or complete and waits for GO
	Owned     Step = "owned"     // target: GO has come, the domain is ours and shall run
	Refused   Step = "refused"   // target: the domain did not run here, and nothing is left of it
	Running   Step = "running"   // target: the domain is ours, and the hand-over is over
)

// The two sides, as journals are called.
const (
	sourceSide = "source"
	targetSide = "target"
)

// Record is a line of a journal.
type Record struct {
	Step   Step        `json:"step"`
	UUID   uuid.UUID   `json:"uuid"`
	Domain guest.DomID `json:"domid"`
	Name   string      `json:"name"` // the domain's own
	Peer   string      `json:"peer,omitempty"`
	Lock   string      `json:"lock"` // a file that process and guardian keep locked while they live
	Time   time.Time   `json:"time"`
}

// Journal is the record of one hand-over on one side: a file of lines of JSON, of which the last whole one counts. It is
// locked (flock) by who writes it; Record.Lock tells when its guardian is gone, too.
type Journal struct {
	file *os.File
	last Record
}

// openJournal opens the journal of a domain in folder for a side, and makes it if create. It waits for the lock at most for
// wait; os.ErrDeadlineExceeded says that somebody has it.
func openJournal(folder, side string, id uuid.UUID, create bool, wait time.Duration) (*Journal, error) {
	flags := os.O_RDWR | os.O_APPEND
	if create {
		flags |= os.O_CREATE
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
	}
	name := filepath.Join(folder, id.String()+"."+side)
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{file: f}
	if err = lock(f, wait); err == nil {
		err = j.read()
	}
	if err == nil && create {
		err = syncFolder(folder)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", name, err), f.Close())
	}
	return j, nil
}

// lock locks f, waiting at most for wait.
func lock(f *os.File, wait time.Duration) error {
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("a hand-over is under way: %w", os.ErrDeadlineExceeded)
		}
	}
}

func syncFolder(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// read finds the last record, and removes what was not written whole behind it.
func (j *Journal) read() error {
	b, err := io.ReadAll(j.file)
	if err != nil {
		return err
	}
	whole := b[:bytes.LastIndexByte(b, '\n')+1]
	if len(whole) < len(b) {
		if err := j.file.Truncate(int64(len(whole))); err != nil {
			return err
		}
	}
	if len(whole) == 0 {
		return nil
	}
	lines := bytes.Split(bytes.TrimSuffix(whole, []byte("\n")), []byte("\n"))
	return json.Unmarshal(lines[len(lines)-1], &j.last)
}

// write records a step, on the disk when it returns.
func (j *Journal) write(step Step, change func(*Record)) error {
	r := j.last
	r.Step, r.Time = step, time.Now().UTC()
	if change != nil {
		change(&r)
	}
	b, err := json.Marshal(r)
	if err == nil {
		_, err = j.file.Write(append(b, '\n'))
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("journal %s: %w", j.file.Name(), err)
	}
	j.last = r
	return nil
}

// close lets go of the journal; a remove takes it away first.
func (j *Journal) close() error { return j.file.Close() }

func (j *Journal) remove() error { return errors.Join(os.Remove(j.file.Name()), j.close()) }

// begin opens a journal for writing with its first step; none if the side keeps none.
func (s *Side) begin(side string, step Step, r Record) error {
	if s.Folder == "" {
		return nil
	}
	j, err := openJournal(s.Folder, side, r.UUID, true, 0)
	if err != nil {
		return err
	}
	s.journal = j
	return s.step(step, func(last *Record) {
		*last = Record{Step: last.Step, Time: last.Time, UUID: r.UUID, Domain: r.Domain, Name: r.Name, Peer: r.Peer, Lock: s.Lock}
	})
}

// step records a step, if there is a journal.
func (s *Side) step(step Step, change func(*Record)) error {
	if s.journal == nil {
		return nil
	}
	return s.journal.write(step, change)
}

// end lets go of the journal, and removes it if it has nothing to tell any more.
func (s *Side) end(remove bool) {
	j := s.journal
	if s.journal = nil; j == nil {
		return
	}
	err := j.close
	if remove {
		err = j.remove
	}
	if e := err(); e != nil {
		s.Log.Warn().Err(e).Msg("journal")
	}
}

// JournalFolder is where journals are kept unless something else is said.
func JournalFolder() (string, error) {
	if dir := os.Getenv("XENFERRY_JOURNAL"); dir != "" {
		return dir, nil
	}
	if os.Getuid() == 0 {
		return "/var/lib/xenferry", nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state", "xenferry"), err
}
