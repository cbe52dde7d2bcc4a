package cmd_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"xenferry/lib/direct"
	"xenferry/lib/guest"
	"xenferry/lib/progress"
	"xenferry/lib/save"
	"xenferry/lib/x86"
	"xenferry/lib/xcstream"
)

// dropping is a guest whose final round is lost: the log's last reading and what suspending changed come out empty, so
// that the image holds what the live rounds saw.
type dropping struct{ save.Guest }

func (d dropping) Dirty(ctx context.Context, dirty guest.Bitmap, final bool) (uint64, error) {
	n, err := d.Guest.Dirty(ctx, dirty, final)
	if final {
		dirty.Reset()
	}
	return n, err
}

func (d dropping) Suspended(ctx context.Context) ([]xcstream.Record, guest.Bitmap, error) {
	records, also, err := d.Guest.Suspended(ctx)
	also.Reset()
	return records, also, err
}

// suspendOnly is the save.Control of a save by hand.
type suspendOnly struct {
	h  *simHost
	id guest.DomID
}

func (s suspendOnly) Suspend(ctx context.Context) error { return s.h.Suspend(ctx, s.id) }
func (suspendOnly) Commit(context.Context) error        { return nil }

// TestFinalPassDropped: an image without its final round does not pass for the guest, whatever its kind.
func TestFinalPassDropped(t *testing.T) {
	for _, kind := range []string{"pv64", "pv32", "hvm", "pvh"} {
		t.Run(kind, func(t *testing.T) {
			a, b := newHost(t, "--memory", "128M"), newHost(t, "--memory", "128M")
			dir := t.TempDir()
			witness, image := filepath.Join(dir, "witness"), filepath.Join(dir, "image")
			id := a.create(t, "--name", "g", "--kind", kind, "--memory", "8M", "--workload", "uniform:50000", "--witness", witness)
			f, err := os.Create(image)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			g, err := x86.OpenSave(t.Context(), a, id)
			if err != nil {
				t.Fatal(err)
			}
			info, err := a.Info(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			spec := direct.SpecOf(info)
			opt := save.Options{Version: xcstream.Version3, Live: true, Spec: &spec, Policy: oneRound{t}}
			meter := progress.New(zerolog.Nop(), f, nil)
			if err := save.Run(t.Context(), dropping{g}, f, opt, suspendOnly{a, id}, meter); err != nil {
				t.Fatal(err)
			}
			// A PV guest is refused already by xc-restore: its start_info is not yet in the form in which it is saved.
			_, errs, status := try(t, "bash", "-c", `xc-restore --host "$1" --paused <"$2"`, "bash", b.spec, image)
			if status != 0 && !info.Kind.PV() {
				t.Fatal(errs)
			}
			if status == 0 && b.check(t, "--witness", witness, "g") == nil {
				t.Error("the witness accepts a guest without its final pass")
			}
		})
	}
}

// oneRound is a policy of a single round, after which the guest writes on before it is suspended.
type oneRound struct{ t *testing.T }

func (o oneRound) Decide(s save.Stats) save.Decision {
	if s.Iteration == 0 {
		return save.Continue
	}
	time.Sleep(20 * time.Millisecond)
	return save.StopAndCopy
}

// TestOldCopy: an older image of a guest, consistent in itself, passes the guest's own proof and fails the witness.
func TestOldCopy(t *testing.T) {
	a, b := newHost(t, "--memory", "128M"), newHost(t, "--memory", "128M")
	dir := t.TempDir()
	witness, image := filepath.Join(dir, "witness"), filepath.Join(dir, "image")
	a.create(t, "--name", "g", "--kind", "pv64", "--memory", "8M", "--workload", "uniform:50000", "--witness", witness)
	shell(t, `xc-save --host "$1" --leave running g >"$2"; xc-sim suspend --host "$1" g; xc-restore --host "$3" --paused <"$2"`, a.spec, image, b.spec)
	if err := b.check(t, "g"); err != nil {
		t.Errorf("an old copy is consistent: %v", err)
	}
	if err := b.check(t, "--witness", witness, "g"); err == nil {
		t.Error("the witness accepts an old copy")
	}
}
