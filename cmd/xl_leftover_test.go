package cmd_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xenferry/lib/migrate"
)

// Crashes that leave the source something to decide: the domain is suspended there, and given away or not.
var (
	crashGiven   = crash{"held", "source: recorded given, 1", "sender"}
	crashSending = crash{"held", "source: got domain received and held, ready to unpause, 1", "source side"}
)

// recoverWith runs recover on the source or the target, and wants a status and some words.
func (w *world) recoverWith(t *testing.T, source bool, status int, says string, options ...string) {
	t.Helper()
	words := []string{"xl-stream", "recover", "--host", w.b.spec, "--journal", w.jb}
	if source {
		words = []string{"xl-stream", "recover", "--host", w.a.spec, "--journal", w.ja}
	}
	_, said, got := try(t, append(words, options...)...)
	if got != status || !strings.Contains(said, says) {
		t.Errorf("%v: exit status %d, want %d and %q\n%s", options, got, status, says, said)
	}
}

// suspended says that domain 1 of the source is there, and suspended.
func (w *world) suspended(t *testing.T) {
	t.Helper()
	if d, err := w.a.Info(t.Context(), 1); err != nil || !d.Suspended() {
		t.Fatalf("the source's domain is %+v, %v", d, err)
	}
}

// TestXLRecoverStranger: a host that knows nothing of a hand-over decides nothing, whichever side asks it.
func TestXLRecoverStranger(t *testing.T) {
	w := newWorld(t, rand.New(rand.NewPCG(1, 1)))
	stranger := fmt.Sprintf("xl-stream recover --host %s --journal %s", newHost(t).spec, t.TempDir())
	w.strike(t, crashGiven)
	w.recoverWith(t, true, 1, "nothing is recorded there", "--peer", stranger)
	w.suspended(t)
	w.recover(t)
	if where := w.judge(t); where != "source" && where != "target" {
		t.Errorf("the guest is at the %s", where)
	}

	// The source's machine is started anew, without the domain; then its disk is lost, too.
	w = newWorld(t, rand.New(rand.NewPCG(1, 1)))
	w.strike(t, crashSending)
	if err := w.a.Destroy(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	w.recoverWith(t, true, 1, "nothing is recorded there", "--peer", stranger)
	w.recoverWith(t, false, 1, "nobody knows", "--peer", stranger)
	if left, err := migrate.List(w.ja); err != nil || len(left) != 1 {
		t.Errorf("the source's journals: %+v, %v", left, err)
	}
	if err := os.RemoveAll(w.ja); err != nil {
		t.Fatal(err)
	}
	w.recoverWith(t, false, 1, "nothing is recorded there", "--peer", fmt.Sprintf("xl-stream recover --host %s --journal %s", w.a.spec, w.ja))
	w.recoverWith(t, false, 0, "runs here, at the target", "--peer-says", "given")
	if where := w.judge(t); where != "target" {
		t.Errorf("the guest is at the %s", where)
	}
}

// TestXLRecoverOne: what somebody has seen of one domain is not taken for an answer about another.
func TestXLRecoverOne(t *testing.T) {
	w := newWorld(t, rand.New(rand.NewPCG(1, 1)))
	for range 2 {
		w.strike(t, crash{"plain", "source: recorded given, 1", "both"})
	}
	left, err := migrate.List(w.ja)
	if err != nil || len(left) != 2 {
		t.Fatalf("%+v, %v", left, err)
	}
	for _, says := range []string{"refused", "running"} {
		w.recoverWith(t, true, 2, left[1].UUID.String(), "--peer-says", says)
		w.recoverWith(t, true, 2, "is an answer for one domain", "--peer-says", says, "g")
	}
	w.recoverWith(t, true, 1, `no hand-over of a domain "h"`, "--peer-says", "refused", "h")
	w.recoverWith(t, true, 0, left[0].UUID.String()+" runs here, at the source", "--peer-says", "refused", left[0].UUID.String())
	now, err := migrate.List(w.ja)
	if err != nil || len(now) != 1 || now[0].ID != left[1].ID {
		t.Errorf("then: %+v, %v", now, err)
	}
	if err := w.a.check(t, "g"); err != nil {
		t.Error(err)
	}
	if err := w.a.Destroy(t.Context(), left[0].Domain); err != nil {
		t.Fatal(err)
	}
	w.recoverWith(t, true, 0, "runs here, at the source", "--peer-says", "refused", "g")
	w.recoverWith(t, false, 0, "is not here, and was not given")
	if where := w.judge(t); where != "source" {
		t.Errorf("the guest is at the %s", where)
	}
}

// TestXLRecoverDisowned: a guest that somebody has saved since its sender and the guardian were killed is not resumed by recover, nor
// destroyed: the image may run elsewhere, and may be lost.
func TestXLRecoverDisowned(t *testing.T) {
	for _, c := range []struct {
		name  string
		crash crash
		says  string
	}{
		{"before the suspend", crash{"held", "source: got xl migration receiver ready, send binary domain data., 1", "source side"}, "refused"},
		{"after the suspend", crashSending, "refused"},
		{"given", crash{"plain", "source: recorded given, 1", "both"}, "refused"},
		{"given, and it runs there", crash{"plain", "source: recorded given, 1", "both"}, "running"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, rand.New(rand.NewPCG(1, 1)))
			w.strike(t, c.crash)
			if d, err := w.a.Info(t.Context(), 1); err != nil || d.Suspended() {
				run(t, "xc-save", "--host", w.a.spec, "--resume", "1")
			}
			run(t, "sh", "-c", `exec xc-save --host "$0" 1 >"$1"`, w.a.spec, filepath.Join(t.TempDir(), "image"))
			w.recoverWith(t, true, 0, "left as it is", "--peer-says", c.says)
			w.suspended(t)
			if left, err := migrate.List(w.ja); err != nil || len(left) > 0 {
				t.Errorf("%+v, %v", left, err)
			}
		})
	}
}

// TestXLReceiveAgain: a receiver whose machine was killed, and that gets the same domain again, first removes what was left of it.
func TestXLReceiveAgain(t *testing.T) {
	w := newWorld(t, rand.New(rand.NewPCG(1, 1)))
	w.strike(t, crash{"held", "target: run xc-restore, 1", "target side"})
	if d := w.b.domain(t, "g--incoming"); d == nil {
		t.Fatalf("nothing is left\n%s", strings.Join(w.said, ""))
	}
	receiver := fmt.Sprintf("exec:xl-stream receive --host %s --journal %s", w.b.spec, w.jb)
	run(t, "xl-stream", "send", "--host", w.a.spec, "--journal", w.ja, "g", receiver)
	if where := w.judge(t); where != "target" {
		t.Errorf("the guest is at the %s", where)
	}
}
