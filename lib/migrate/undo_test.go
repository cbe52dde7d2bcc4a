package migrate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"xenferry/lib/guard"
	"xenferry/lib/guest"
	"xenferry/lib/host"
)

// oneDomain is a host with one domain, of kind PVH, that notes what is done to it.
type oneDomain struct {
	host.Host
	info guest.Info
	did  []string
	gone error // what Info fails with
	dead error // what Resume fails with
}

func (h *oneDomain) do(what string) error {
	h.did = append(h.did, what)
	return nil
}

func (h *oneDomain) Info(context.Context, guest.DomID) (guest.Info, error) {
	if h.gone != nil {
		return guest.Info{}, h.gone
	}
	return h.info, nil
}

func (h *oneDomain) Domains(context.Context) ([]guest.Info, error) { return []guest.Info{h.info}, nil }

func (h *oneDomain) Suspend(context.Context, guest.DomID) error { return nil }

func (h *oneDomain) Resume(context.Context, guest.DomID) error {
	if h.dead != nil {
		return h.dead
	}
	h.info.Shutdown = false
	return h.do("resume")
}

func (h *oneDomain) Unpause(context.Context, guest.DomID) error { return h.do("unpause") }

func (h *oneDomain) Create(context.Context, guest.Spec) (guest.DomID, error) {
	return h.info.ID, h.do("create")
}

func (h *oneDomain) Destroy(_ context.Context, id guest.DomID) error {
	if id != h.info.ID {
		return fmt.Errorf("domain %d is not the one", id)
	}
	return h.do("destroy")
}

func (h *oneDomain) SetLogDirty(context.Context, guest.DomID, bool) error { return nil }

// What a journal has last outweighs what the guardian was told; what it can finish alone leaves recover nothing to do.
func TestUndo(t *testing.T) {
	r := first()
	suspended := guest.Info{ID: r.Domain, UUID: r.UUID, Kind: guest.PVH, Shutdown: true, Reason: guest.ShutdownSuspend}
	paused := guest.Info{ID: r.Domain, UUID: r.UUID, Kind: guest.PVH, Paused: true}
	resume, unpause := guard.State{Resume: true}, guard.State{Unpause: true}
	for _, c := range []struct {
		name   string
		info   guest.Info
		told   guard.State
		steps  []Step // "" is a line that was cut
		did    string
		undone bool // and the journal is gone
	}{
		{"no journal", suspended, resume, nil, "resume", true},
		{"sending", suspended, resume, []Step{Sending}, "resume", true},
		{"given", suspended, resume, []Step{Sending, Given}, "", false},
		{"held", paused, guard.State{Destroy: true}, []Step{Receiving, Held}, "", false},
		{"owned", paused, guard.State{Destroy: true}, []Step{Receiving, Held, Owned}, "unpause", false},
		{"returned", paused, unpause, []Step{Receiving, Held, Owned, Returned}, "destroy", false},
		{"cannot be read", suspended, resume, []Step{Sending, "", Given}, "", false},
	} {
		name := filepath.Join(t.TempDir(), r.UUID.String()+"."+SourceSide)
		j := Journal{last: r}
		for _, s := range c.steps {
			f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			j.file = f
			if s == "" {
				_, err = f.WriteString("{")
			} else {
				err = j.write(s, func(r *Record) { r.Existing = []guest.DomID{1} })
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = j.close()
		}
		h := &oneDomain{info: c.info}
		c.told.Domain, c.told.UUID, c.told.Journal = r.Domain, r.UUID, name
		err := Undo(t.Context(), h, zerolog.Nop(), c.told)
		if cut := c.name == "cannot be read"; (err != nil) != cut {
			t.Errorf("%s: %v", c.name, err)
		}
		if did := strings.Join(h.did, ", "); did != c.did {
			t.Errorf("%s: did %q, want %q", c.name, did, c.did)
		}
		if _, err := os.Stat(name); os.IsNotExist(err) != c.undone {
			t.Errorf("%s: the journal: %v", c.name, err)
		}
	}
}

// nobody is a guardian that is told, and no more.
type nobody struct{}

func (nobody) Tell(guard.State) error { return nil }

// What is said of a domain is how it is, whoever does not answer; as long as it may be suspended it is not let go of.
func TestSourceUndo(t *testing.T) {
	why, dead, gone := errors.New("why"), errors.New("refused"), errors.New("no host")
	for _, c := range []struct {
		name       string
		kind       guest.Kind
		dead, gone error
		says       string
		suspended  bool
	}{
		{"all is well", guest.PVH, nil, nil, "why; domain 7 runs on", false},
		{"no emulator any more", guest.HVM, nil, nil, "why; domain 7 runs on, but its emulator stands still", false},
		{"no hypervisor's will", guest.PVH, dead, nil, "why; domain 7 could not be resumed and is suspended: refused", true},
		{"neither", guest.HVM, dead, nil, "why; domain 7 could not be resumed and is suspended: its emulator stands still", true},
		{"nobody can tell", guest.PVH, nil, gone, "why; domain 7 could not be resumed and may be suspended: no host", true},
	} {
		d := guest.Info{ID: 7, Kind: c.kind, Shutdown: true, Reason: guest.ShutdownSuspend}
		h := &oneDomain{info: d, gone: c.gone, dead: c.dead}
		s := &Source{Side: Side{Host: h, Guard: nobody{}}, Domain: d, suspended: true}
		err := s.Undo(t.Context(), why)
		if !errors.Is(err, why) || !strings.HasPrefix(err.Error(), c.says) || s.suspended != c.suspended {
			t.Errorf("%s: suspended %v: %v", c.name, s.suspended, err)
		}
	}
}

// A domain that was made and could not be looked at, as after an interrupt, is destroyed, and no other.
func TestTargetUndo(t *testing.T) {
	d := guest.Info{ID: 7, Kind: guest.PVH, Paused: true}
	h := &oneDomain{info: d, gone: context.Canceled}
	target := &Target{Side: Side{Host: h, Guard: nobody{}}}
	err := target.Undo(t.Context(), target.create(t.Context(), guest.Spec{Kind: guest.PVH}))
	if did := strings.Join(h.did, ", "); did != "create, destroy" || !errors.Is(err, context.Canceled) {
		t.Errorf("did %q: %v", did, err)
	}
}
