package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// The words are xl's to the octet. Of several the octets tell which, and none of what follows is read.
func TestWords(t *testing.T) {
	for w, size := range map[word]int{banner: 54, ready: 34, goOn: 44, report: 39} {
		if len(w) != size {
			t.Errorf("%q has %d octets, want %d", w, len(w), size)
		}
		for _, others := range [][]word{{w}, {w, held}, {keeps, w}} {
			in := strings.NewReader(string(w) + "!")
			if got, err := expect(iotest.OneByteReader(in), others...); err != nil || got != w || in.Len() != 1 {
				t.Errorf("%q: %q, %v, %d octets left", w, got, err, in.Len())
			}
			in = strings.NewReader(string(w) + "!")
			if got, err := expect(in, others...); err != nil || got != w || in.Len() != 1 {
				t.Errorf("%q: %q, %v, %d octets left", w, got, err, in.Len())
			}
		}
		// Who says something else may wait for ever then: the first octet tells.
		r, out := io.Pipe()
		go func() { _, _ = out.Write([]byte("hello\n")) }()
		if _, err := expect(r, w); err == nil {
			t.Errorf("%q was taken for something else", w)
		}
		if _, err := expect(strings.NewReader(string(w[:9])), w); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	}
	for _, w := range []word{held, ready} {
		if got, err := expect(strings.NewReader(string(w)), ready, held); got != w || err != nil {
			t.Errorf("%q was taken for %q, %v", w, got, err)
		}
	}
}

// The tail of an xl header offers a hand-over by its number, or nothing.
func TestOffer(t *testing.T) {
	id := uuid.New()
	if got := offered(offerOf(id)); got != id {
		t.Errorf("%v, want %v", got, id)
	}
	for _, tail := range []string{"", "something else", string(offer), string(offer) + "1234", strings.Replace(string(offerOf(id)), "1", "2", 1)} {
		if got := offered([]byte(tail)); got != uuid.Nil {
			t.Errorf("%q offers %v", tail, got)
		}
	}
}

// record is a hand-over's first record.
func first() Record {
	return Record{ID: uuid.New(), UUID: uuid.New(), Domain: 7, Name: "g", Peer: "ssh:there"}
}

// A journal tells the last step that was written whole, to one at a time.
func TestJournal(t *testing.T) {
	side := Side{Folder: t.TempDir(), Log: zerolog.Nop()}
	r := first()
	if err := side.begin(t.Context(), SourceSide, Sending, r); err != nil {
		t.Fatal(err)
	}
	if all, err := List(side.Folder); err != nil || len(all) != 1 || all[0].Step != Sending || all[0].Time.IsZero() {
		t.Fatalf("%+v, %v", all, err)
	}
	other := Side{Folder: side.Folder, Log: zerolog.Nop()}
	if err := other.begin(t.Context(), SourceSide, Sending, r); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("sent twice at once: %v", err)
	}
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	if _, err := openJournal(ctx, side.Folder, SourceSide, r.UUID, false, time.Hour); !errors.Is(err, enough) {
		t.Errorf("interrupted: %v", err)
	}
	if err := side.step(Given, nil); err != nil {
		t.Fatal(err)
	}
	name := side.journal.file.Name()
	side.end((*Journal).close)

	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"step":"runn`); err != nil { // the machine lost power
		t.Fatal(err)
	}
	_ = f.Close()
	all, err := List(side.Folder)
	if err != nil || len(all) != 1 || all[0].Side != SourceSide || !all[0].Unfinished(&side) {
		t.Fatalf("%+v, %v", all, err)
	}
	if l := all[0]; l.Step != Given || l.ID != r.ID || l.UUID != r.UUID || l.Domain != 7 || l.Name != "g" || l.Peer != r.Peer || l.Host != "xen" {
		t.Errorf("%+v", l)
	}
	if err := other.begin(t.Context(), SourceSide, Sending, r); err == nil || !strings.Contains(err.Error(), "is not over (given") {
		t.Errorf("sent again before it is known whose it is: %v", err)
	}
	j, err := openJournal(t.Context(), side.Folder, SourceSide, r.UUID, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.write(Refused, nil); err != nil {
		t.Fatal(err)
	}
	_ = j.close()
	if j, err = openJournal(t.Context(), side.Folder, SourceSide, r.UUID, false, 0); err != nil || j.last.Step != Refused || len(j.all) != 3 {
		t.Fatalf("%+v, %v", j, err)
	}
	if err := j.remove(); err != nil {
		t.Error(err)
	}
	if _, err := openJournal(t.Context(), side.Folder, SourceSide, r.UUID, false, 0); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// A disk that is full for a while costs the step that did not fit, and no other.
func TestJournalFull(t *testing.T) {
	side := Side{Folder: t.TempDir(), Log: zerolog.Nop()}
	if err := side.begin(t.Context(), SourceSide, Sending, first()); err != nil {
		t.Fatal(err)
	}
	full(t, side.journal.size+10, func() {
		if err := side.step(Given, nil); err == nil {
			t.Error("it fits")
		}
	})
	if err := side.step(Refused, nil); err != nil {
		t.Fatal(err)
	}
	name := side.journal.file.Name()
	side.end((*Journal).close)
	if all, err := List(side.Folder); err != nil || len(all) != 1 || all[0].Step != Refused {
		t.Errorf("%+v, %v", all, err)
	}

	// One that cannot be read is told, beside those that can.
	other := first()
	if err := errors.Join(os.WriteFile(name, []byte("{\"step\": {\"step\"\n"), 0o600), side.begin(t.Context(), SourceSide, Sending, other)); err != nil {
		t.Fatal(err)
	}
	side.end((*Journal).close)
	if all, err := List(side.Folder); err == nil || !strings.Contains(err.Error(), name+": line 1") || len(all) != 1 || all[0].ID != other.ID {
		t.Errorf("%+v, %v", all, err)
	}
}

// full has no file become longer than size while do runs.
func full(t *testing.T, size int64, do func()) {
	t.Helper()
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(size), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	do()
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
}

// A target's journal goes once no source will ask, or after its time; what may be asked for, and what is in use, stays.
func TestJournalsEnd(t *testing.T) {
	log := zerolog.Nop()
	folder := t.TempDir()
	left := func(want int) {
		t.Helper()
		Prune(folder, log)
		if names, err := os.ReadDir(folder); err != nil || len(names) != want {
			t.Errorf("%d are left, want %d: %v", len(names), want, names)
		}
	}
	side := Side{Folder: folder, Log: log}
	receive := func(r Record, step Step, end func(*Journal) error) {
		t.Helper()
		if err := errors.Join(side.begin(t.Context(), TargetSide, Receiving, r), side.step(step, nil)); err != nil {
			t.Fatal(err)
		}
		side.end(end)
	}
	r := first()
	receive(r, Running, (*Journal).close) // its source was not told
	left(1)
	again := r
	again.ID = uuid.New()
	receive(again, Running, (*Journal).forget)
	left(1)
	j, err := openJournal(t.Context(), folder, TargetSide, r.UUID, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	if l, ok := j.of(r.ID); !ok || l.Step != Running {
		t.Errorf("an earlier source is told %+v", l)
	}
	if err := j.write(Running, func(r *Record) { r.Time = r.Time.Add(-keepTime - time.Hour) }); err != nil {
		t.Fatal(err)
	}
	left(1) // in use
	_ = j.close()
	left(0)
	receive(first(), Running, (*Journal).forget)
	left(0)
	held := first()
	if err := errors.Join(side.begin(t.Context(), TargetSide, Receiving, held), side.step(Held, func(r *Record) { r.Time = r.Time.Add(-2 * keepTime) })); err != nil {
		t.Fatal(err)
	}
	side.end((*Journal).close)
	left(1)
	lock, err := NewLock(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	left(2)
	_ = lock.Close()
	left(1)
}

// A side that is busy is asked again, until who asks gives up.
func TestBusy(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	asked := 0
	step, err := TellKept(ctx, first(), func(context.Context, Record, Step) (Step, error) {
		if asked++; asked == 1 {
			return "", fmt.Errorf("there: %w", ErrBusy)
		}
		return Refused, nil
	})
	if step != Refused || err != nil || asked != 2 {
		t.Errorf("%q, %v, asked %d times", step, err, asked)
	}
	if _, err := TellKept(ctx, first(), func(context.Context, Record, Step) (Step, error) {
		cancel(enough)
		return "", ErrBusy
	}); !errors.Is(err, enough) {
		t.Errorf("interrupted: %v", err)
	}
}
