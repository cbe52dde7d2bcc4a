package guard

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"xenferry/lib/guest"
)

// fakeHost has one domain and notes what is asked of it.
type fakeHost struct {
	Host
	info     guest.Info
	obeys    bool // the guest suspends when it is asked
	suspends error
	did      []string
}

func (h *fakeHost) Info(context.Context, guest.DomID) (guest.Info, error) { return h.info, nil }

func (h *fakeHost) Domains(context.Context) ([]guest.Info, error) { return []guest.Info{h.info}, nil }

func (h *fakeHost) Destroy(context.Context, guest.DomID) error {
	h.did = append(h.did, "destroy")
	return nil
}

func (h *fakeHost) Suspend(context.Context, guest.DomID) error {
	h.did = append(h.did, "suspend")
	if h.obeys {
		h.info.Shutdown, h.info.Reason = true, guest.ShutdownSuspend
	}
	return h.suspends
}

func (h *fakeHost) Resume(context.Context, guest.DomID) error {
	h.did = append(h.did, "resume")
	h.info.Shutdown = false
	return nil
}

func (h *fakeHost) SetLogDirty(context.Context, guest.DomID, bool) error {
	h.did = append(h.did, "log off")
	return nil
}

// Who knows that no suspend is under way does not ask for one; who cannot know does, once.
func TestResume(t *testing.T) {
	suspended := guest.Info{ID: 1, UUID: uuid.UUID{1}, Shutdown: true, Reason: guest.ShutdownSuspend}
	running := guest.Info{ID: 1, UUID: uuid.UUID{1}}
	undo := func(h *fakeHost) error {
		return Undo(context.Background(), h, zerolog.Nop(), State{Domain: 1, UUID: uuid.UUID{1}, StopLog: true, Resume: true})
	}
	resume := func(h *fakeHost) error { return Resume(context.Background(), h, 1) }
	for _, row := range []struct {
		name string
		host fakeHost
		run  func(*fakeHost) error
		want string
	}{
		{"resume a suspended domain", fakeHost{info: suspended}, resume, "resume"},
		{"resume one that runs", fakeHost{info: running}, resume, ""},
		{"undo, the guest is about to suspend", fakeHost{info: running, obeys: true}, undo, "log off, suspend, resume"},
		{"undo, the guest does not answer", fakeHost{info: running, suspends: errors.New("no answer")}, undo, "log off, suspend"},
		{"undo, it suspended as the request was withdrawn", fakeHost{info: running, obeys: true, suspends: errors.New("too late")}, undo, "log off, suspend, resume"},
		{"undo for another domain of its number", fakeHost{info: guest.Info{ID: 1, UUID: uuid.UUID{2}}}, undo, ""},
	} {
		if err := row.run(&row.host); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		if got := strings.Join(row.host.did, ", "); got != row.want {
			t.Errorf("%s: did %q, want %q", row.name, got, row.want)
		}
		if row.host.info.Shutdown {
			t.Errorf("%s: the domain is left suspended", row.name)
		}
	}
}

// Of what was being made nothing is left, but what has run already stays where whoever makes it may let it run.
func TestDestroy(t *testing.T) {
	made := State{UUID: uuid.UUID{1}, Existing: []guest.DomID{1}, Destroy: true}
	spare := made
	spare.Spare = true
	paused, ran := guest.Info{ID: 2, UUID: uuid.UUID{1}, Paused: true}, guest.Info{ID: 2, UUID: uuid.UUID{1}, EverUnpaused: true}
	for _, row := range []struct {
		name  string
		info  guest.Info
		state State
		want  string
	}{
		{"half-built", paused, made, "destroy"},
		{"has run, though it might not", ran, made, "destroy"},
		{"half-built, by a toolstack", paused, spare, "destroy"},
		{"has run, by a toolstack", ran, spare, ""},
		{"was there before", guest.Info{ID: 1, UUID: uuid.UUID{1}}, spare, ""},
	} {
		h := &fakeHost{info: row.info}
		if err := Undo(context.Background(), h, zerolog.Nop(), row.state); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		if got := strings.Join(h.did, ", "); got != row.want {
			t.Errorf("%s: did %q, want %q", row.name, got, row.want)
		}
	}
}
