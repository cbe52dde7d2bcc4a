package cmd_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"xenferry/lib/migrate"
)

// TestXLRecoverByHand: where the other side cannot be asked nothing changes, until somebody has looked there.
func TestXLRecoverByHand(t *testing.T) {
	w := newWorld(t, rand.New(rand.NewPCG(1, 1)))
	source := []string{"xl-stream", "recover", "--host", w.a.spec, "--journal", w.ja}
	target := []string{"xl-stream", "recover", "--host", w.b.spec, "--journal", w.jb}
	recoverBy := func(side []string, status int, says string, options ...string) {
		t.Helper()
		_, said, got := try(t, append(side[:len(side):len(side)], options...)...)
		if got != status || !strings.Contains(said, says) {
			t.Errorf("%v: exit status %d, %q is not said\n%s", options, got, says, said)
		}
	}
	last := func(journals string, want migrate.Step) { // of the journals, "" for none
		t.Helper()
		all, err := migrate.List(journals)
		got := migrate.Step("")
		if len(all) > 0 {
			got = all[len(all)-1].Step
		}
		if err != nil || got != want {
			t.Errorf("journals %+v, %v; want %q", all, err, want)
		}
	}

	// Given, and the target was not told.
	w.strike(t, crash{"held", "source: recorded given, 1", "sender"})
	last(w.ja, migrate.Given)
	last(w.jb, migrate.Held)
	if out := run(t, append(source, "--list")...); !strings.Contains(out, `"step":"given"`) || strings.Count(out, "\n") != 1 {
		t.Errorf("listed: %s", out)
	}
	recoverBy(source, 1, "stays suspended")
	recoverBy(source, 1, "stays suspended", "--peer", "false")
	recoverBy(source, 1, "stays suspended", "--peer-says", "given") // which is no target's answer
	recoverBy(target, 1, "stays paused")
	recoverBy(target, 1, "stays paused", "--peer", "echo nonsense; true")
	recoverBy(target, 2, "want running or refused", "--peer-says", "lost")
	if _, said, status := try(t, "xl-stream", "send", "--host", w.a.spec, "--journal", w.ja, "g--migratedaway", "exec:true"); status != 1 {
		t.Errorf("sent again: exit status %d\n%s", status, said)
	}
	recoverBy(target, 0, "runs here, at the target", "--peer-says", "given")
	recoverBy(source, 0, "runs on the target", "--peer-says", "running")
	last(w.ja, "")
	last(w.jb, migrate.Running)
	if where := w.judge(t); where != "target" {
		t.Errorf("the guest is at the %s", where)
	}

	// Not given: the source's own recover needs nobody, and the target hears of it from a person.
	w.strike(t, crash{"held", "source: got domain received and held, ready to unpause, 1", "source side"})
	last(w.jb, migrate.Held)
	recoverBy(source, 0, "runs here, at the source")
	last(w.ja, "")
	recoverBy(target, 0, "is not here, and was not given", "--peer-says", "kept")
	if where := w.judge(t); where != "source" {
		t.Errorf("the guest is at the %s", where)
	}

	// The source's machine is gone with the domain, which it had not given: the copy that the target holds is the last.
	w.strike(t, crash{"held", "source: got domain received and held, ready to unpause, 1", "source side"})
	if err := w.a.Destroy(t.Context(), w.a.domain(t, "g").ID); err != nil {
		t.Fatal(err)
	}
	recoverBy(source, 1, "was not given", "--peer", strings.Join(target, " "))
	recoverBy(target, 1, "no longer here", "--peer", strings.Join(source, " "))
	recoverBy(target, 0, "runs here, at the target", "--peer-says", "given")
	recoverBy(source, 0, "runs on the target", "--peer", strings.Join(target, " "))
	if where := w.judge(t); where != "target" {
		t.Errorf("the guest is at the %s", where)
	}
}

// TestXLRecoverBusy: what a sender left of a domain that somebody else saves meanwhile waits until he is done, and his guest stays
// suspended; whoever asks.
func TestXLRecoverBusy(t *testing.T) {
	w := newWorld(t, rand.New(rand.NewPCG(1, 1)))
	w.strike(t, crash{"held", "source: got xl migration receiver ready, send binary domain data., 1", "source side"})
	left, err := migrate.List(w.ja)
	if err != nil || len(left) != 1 || left[0].Step != migrate.Sending {
		t.Fatalf("%+v, %v", left, err)
	}
	r, out := pipe(t) // that nobody reads
	saver := startWith(t, nil, out, nil, "xl-stream", "save", "--host", w.a.spec, "g")
	closeAll(out)
	suspended := func() bool { d := w.a.domain(t, "g"); return d != nil && d.Suspended() }
	for deadline := time.Now().Add(patience); !suspended(); time.Sleep(5 * time.Millisecond) {
		if saver.over() || time.Now().After(deadline) {
			t.Fatalf("it does not save\n%s", saver.stderr.String())
		}
	}
	ours := []string{"xl-stream", "recover", "--host", w.a.spec, "--journal", w.ja}
	tell := append(ours[:len(ours):len(ours)], "--tell", fmt.Sprintf("source,%v,%v,held", left[0].UUID, left[0].ID))
	for _, words := range [][]string{ours, tell} {
		_, said, status := try(t, words...)
		if want := fmt.Sprintf("process %d is at work on domain", saver.cmd.Process.Pid); status != 1 || !strings.Contains(said, want) {
			t.Errorf("exit status %d, %q is not said\n%s", status, want, said)
		}
		if !suspended() {
			t.Fatal("the guest runs while it is saved")
		}
	}
	closeAll(r) // then the save fails, and the guest runs on
	saver.wait()
	run(t, ours...)
	if where := w.judge(t); where != "source" {
		t.Errorf("the guest is at the %s", where)
	}

	// Where a guardian is left to let the domain run on, it leaves recover nothing to undo.
	w.strike(t, crash{"held", "source: got domain received and held, ready to unpause, 1", "sender"})
	if left, err := migrate.List(w.ja); err != nil || len(left) > 0 {
		t.Errorf("%+v, %v", left, err)
	}
	w.recover(t)
	if where := w.judge(t); where != "source" {
		t.Errorf("the guest is at the %s", where)
	}
}

// TestXLRecoverAtOnce: two sides that recover at once, so that each has its journal while it asks the other, do not wait for each other
// for ever.
func TestXLRecoverAtOnce(t *testing.T) {
	w := newWorld(t, rand.New(rand.NewPCG(1, 1)))
	w.strike(t, crash{"held", "source: recorded given, 1", "sender"})
	var both []*process
	for _, source := range []bool{true, false} {
		words := w.recovery(t, nil, source)
		words[len(words)-1] = "sleep 0.3; " + words[len(words)-1] // as far as the other is
		both = append(both, start(t, words...))
	}
	began := time.Now()
	for _, p := range both {
		if status := p.wait(); status != 0 {
			t.Errorf("exit status %d\n%s", status, p.stderr.String())
		}
	}
	if took := time.Since(began); took > time.Minute { // settleTime is more
		t.Errorf("it took %v", took)
	}
	if where := w.judge(t); where != "target" {
		t.Errorf("the guest is at the %s", where)
	}
}

// TestXLSendPeer: a sender whose link is lost too late asks the target at once, and ends the domain that it has locked itself.
func TestXLSendPeer(t *testing.T) {
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	a.create(t, "--name", "g", "--kind", "pvh", "--memory", "8M", "--workload", "uniform:3000")
	there := fmt.Sprintf("--host %s --journal %s", b.spec, t.TempDir())
	_, said, status := try(t, "xl-stream", "send", "--host", a.spec, "--peer", "xl-stream recover "+there, "g",
		"exec:xl-stream receive "+there+" | { head -c 54; head -c 43; }") // the banner, and that it is held
	if status != 0 || !strings.Contains(said, "asking the target") {
		t.Errorf("exit status %d\n%s", status, said)
	}
	moved(t, a, b, said)
}
