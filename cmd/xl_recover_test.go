package cmd_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"xenferry/lib/migrate"
)

// TestXLRecover kills a process of a live migration at a random moment, or cuts its link, and then has both sides recover:
// exactly one runs the guest, under its name, and proves it; nothing is left on the other, and no journal asks for more.
func TestXLRecover(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	a, b := newHost(t, "--memory", "128M"), newHost(t, "--memory", "128M")
	ja, jb := t.TempDir(), t.TempDir()
	seen := map[string]int{}
	for i := range count(60, 8, 500) {
		victim := pick(r, "sender", "receiver", "xc-save", "xc-restore", "xenferry-guard", "link", "both")
		kind := pick(r, "hvm", "pv64", "pvh", "pv32")
		a.create(t, append(busy, "--kind", kind)...)
		outcome, said := recoverOnce(t, r, a, b, ja, jb, victim)
		seen[victim+" "+outcome]++
		source, away, target := a.domain(t, "g"), a.domain(t, "g--migratedaway"), b.domain(t, "g")
		running := 0
		for _, h := range []*simHost{a, b} {
			if d := h.domain(t, "g"); d != nil && !d.Shutdown && !d.Paused && !d.LogDirty {
				running++
				if err := h.check(t, "g"); err != nil {
					t.Errorf("%v", err)
				}
			}
		}
		for _, journals := range []string{ja, jb} {
			if left, err := migrate.List(journals); err != nil || slices.ContainsFunc(left, func(e migrate.Entry) bool {
				return e.Side == migrate.SourceSide || e.Step != migrate.Running && e.Step != migrate.Refused
			}) {
				t.Errorf("journals are left: %+v, %v", left, err)
			}
		}
		if running != 1 || away != nil || source != nil && target != nil || b.domain(t, "g--incoming") != nil {
			t.Errorf("source %+v, away %+v, target %+v", source, away, target)
		}
		if t.Failed() {
			t.Fatalf("run %d: %s of %s killed: %s\n%s", i, victim, kind, outcome, said)
		}
		for _, h := range []*simHost{a, b} {
			if d := h.domain(t, "g"); d != nil {
				if err := h.Destroy(t.Context(), d.ID); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Logf("outcomes: %v", seen)
}

// recoverOnce migrates once, lets something happen, and recovers on both sides. It returns where the guest is then.
func recoverOnce(t *testing.T, r *rand.Rand, a, b *simHost, ja, jb, victim string) (outcome, said string) {
	t.Helper()
	receiver := start(t, "xl-stream", "receive", "--host", b.spec, "--journal", jb, "--listen", "tcp:127.0.0.1:0", "--once")
	via, cut := proxy(t, strings.TrimPrefix(listening(t, receiver), "tcp:"))
	sender := start(t, "xl-stream", "send", "--host", a.spec, "--journal", ja, "g", via)
	time.Sleep(moment(r))
	switch victim {
	case "sender":
		_ = sender.cmd.Process.Kill()
	case "receiver":
		_ = receiver.cmd.Process.Kill()
	case "both":
		_ = receiver.cmd.Process.Kill()
		_ = sender.cmd.Process.Kill()
	case "link":
		cut()
	default:
		_ = killUnder(pick(r, sender, receiver).cmd.Process.Pid, victim)
	}
	status := []int{sender.wait()}
	// Whoever waits for a receiver's peer that never came is not of interest.
	if b.domain(t, "g--incoming") == nil && b.domain(t, "g") == nil {
		_ = receiver.cmd.Process.Signal(os.Interrupt)
	}
	status = append(status, receiver.wait())
	said = fmt.Sprintf("exit statuses %v\n-- sender\n%s-- receiver\n%s", status, sender.stderr.String(), receiver.stderr.String())
	source, target := []string{"xl-stream", "recover", "--host", a.spec, "--journal", ja}, []string{"xl-stream", "recover", "--host", b.spec, "--journal", jb}
	sides := [][]string{append(source, "--peer", strings.Join(target, " ")), append(target, "--peer", strings.Join(source, " "))}
	r.Shuffle(2, func(i, j int) { sides[i], sides[j] = sides[j], sides[i] })
	for _, words := range sides {
		_, errs, code := try(t, words...)
		said += fmt.Sprintf("-- %s: %d\n%s", strings.Join(words, " "), code, errs)
		if code != 0 {
			t.Errorf("recover failed")
		}
	}
	if b.domain(t, "g") != nil {
		return "moved", said
	}
	return "stayed", said
}

// proxy passes one connection on to address, until either end closes it or it is cut.
func proxy(t *testing.T, address string) (via string, cut func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	ready := make(chan struct{})
	cut = sync.OnceFunc(func() {
		_ = l.Close()
		<-ready
		for _, c := range ends {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	t.Cleanup(cut)
	go func() {
		defer close(ready)
		from, err := l.Accept()
		if err != nil {
			return
		}
		ends[0] = from
		to, err := net.Dial("tcp", address)
		if err != nil {
			_ = from.Close()
			return
		}
		ends[1] = to
		for i := range ends {
			go func() {
				_, _ = io.Copy(ends[i], ends[1-i])
				cut()
			}()
		}
	}()
	return "tcp:" + l.Addr().String(), cut
}
