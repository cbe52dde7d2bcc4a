package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
)

// keepTime is how long a target's journal is kept for a source that may still ask, once the hand-over is over on this side.
const keepTime = 30 * 24 * time.Hour

// lockPattern names the files of Record.Lock, for os.CreateTemp.
const lockPattern = "lock-*"

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

// NewLock makes a file in a folder of journals, locked for as long as somebody has it open.
func NewLock(ctx context.Context, folder string) (*os.File, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(folder, lockPattern)
	if err != nil {
		return nil, err
	}
	name := f.Name()
	_ = f.Close()
	// Prune may have it just now, or have taken it.
	return openLocked(ctx, name, os.O_RDWR|os.O_CREATE, guardTime)
}

// journalName takes the file name of a journal apart.
func journalName(file string) (id uuid.UUID, side string, ok bool) {
	stem, side, _ := strings.Cut(filepath.Base(file), ".")
	id, err := uuid.Parse(stem)
	return id, side, err == nil && (side == SourceSide || side == TargetSide)
}

// Entry is a journal as List tells it: the last record, and on which side it is.
type Entry struct {
	Side string `json:"side"` // SourceSide or TargetSide
	Record
}

// Unfinished reports whether a hand-over of a side's host is not over there.
func (e *Entry) Unfinished(s *Side) bool { return !e.Step.over() && e.Host == hostName(s.Spec) }

// List tells all journals of a folder, the oldest first, without waiting for those that are written right now. Those that
// cannot be read are left out, and the error.
func List(folder string) (all []Entry, err error) {
	names, err := filepath.Glob(filepath.Join(folder, "*.*"))
	errs := []error{err}
	for _, name := range names {
		_, side, ok := journalName(name)
		if !ok {
			continue
		}
		switch r, ok, err := lastRecord(name); {
		case err != nil:
			errs = append(errs, err)
		case ok:
			all = append(all, Entry{side, r})
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return a.Time.Compare(b.Time) })
	return all, errors.Join(errs...)
}

// lastRecord is the last whole line of a journal that somebody may be writing; false if there is none, or no journal.
func lastRecord(name string) (r Record, ok bool, err error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	all, _, e := parse(b)
	if err = errors.Join(err, e); err != nil {
		return r, false, fmt.Errorf("journal %s: %w", name, err)
	}
	if len(all) == 0 {
		return r, false, nil
	}
	return all[len(all)-1], true, nil
}

// Prune removes from a folder the journals that are over for longer than a source is expected to ask, and what killed
// processes left of their locks. What is in use is left alone.
func Prune(folder string, log zerolog.Logger) {
	names, _ := filepath.Glob(filepath.Join(folder, "*"))
	for _, name := range names {
		_, side, journal := journalName(name)
		isLock, _ := filepath.Match(lockPattern, filepath.Base(name))
		if !isLock && (!journal || side != TargetSide) {
			continue
		}
		f, err := openLocked(context.Background(), name, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		r, _, _ := lastRecord(name) // one that cannot be read stays
		if isLock || r.Step.over() && time.Since(r.Time) > keepTime {
			if err := os.Remove(name); err != nil {
				log.Warn().Err(err).Msg("prune the journals")
			}
		}
		_ = f.Close()
	}
}

// hostName is how a host's Spec stands in a journal.
func hostName(spec string) string {
	if strings.HasPrefix(spec, "sim:") {
		return spec
	}
	return "xen"
}
