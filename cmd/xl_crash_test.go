package cmd_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"xenferry/lib/migrate"
)

// world is two hosts and what a hand-over between them is made of.
type world struct {
	a, b             *simHost
	ja, jb           string // journals
	r                *rand.Rand
	sender, receiver *process
	relay            *process
	said             []string
	mine, theirs     []string // the options of TLS
}

func newWorld(t *testing.T, r *rand.Rand) *world {
	ca := newAuthority(t)
	return &world{a: newHost(t, "--memory", "96M"), b: newHost(t, "--memory", "96M"), ja: t.TempDir(), jb: t.TempDir(), r: r,
		mine: ca.issue(t, "mine", "here.example", 0), theirs: ca.issue(t, "theirs", "127.0.0.1", 0)}
}

// victims are what may happen to a hand-over, and whether it could: there may be no such process just then.
var victims = map[string]func(w *world) bool{
	"sender":   func(w *world) bool { return w.signal(w.sender, syscall.SIGKILL) },
	"receiver": func(w *world) bool { return w.signal(w.receiver, syscall.SIGKILL) },
	"both": func(w *world) bool {
		return w.signal(w.sender, syscall.SIGKILL) && w.signal(w.receiver, syscall.SIGKILL)
	},
	"source side":     func(w *world) bool { return w.killAll(w.sender) },
	"target side":     func(w *world) bool { return w.killAll(w.receiver) },
	"xc-save":         func(w *world) bool { return killUnder(w.sender.cmd.Process.Pid, "xc-save") },
	"xc-restore":      func(w *world) bool { return killUnder(w.receiver.cmd.Process.Pid, "xc-restore") },
	"source guardian": func(w *world) bool { return killUnder(w.sender.cmd.Process.Pid, "xenferry-guard") },
	"target guardian": func(w *world) bool { return killUnder(w.receiver.cmd.Process.Pid, "xenferry-guard") },
	"source's TLS":    func(w *world) bool { return killUnder(w.sender.cmd.Process.Pid, "exe") },
	"target's TLS":    func(w *world) bool { return killUnder(w.receiver.cmd.Process.Pid, "exe") },
	"transport":       func(w *world) bool { return w.signal(w.relay, syscall.SIGKILL) },
	"link":            func(w *world) bool { return w.signal(w.relay, cutLink) },
	"half-open":       func(w *world) bool { return w.signal(w.relay, halfOpen) },
	"sender's user":   func(w *world) bool { return w.interrupt(w.sender) },
	"receiver's user": func(w *world) bool { return w.interrupt(w.receiver) },
}

// interrupt is a user's, which half of the time is noticed before the process does anything else.
func (w *world) interrupt(p *process) bool {
	struck := w.signal(p, syscall.SIGTERM)
	if w.r.IntN(2) == 0 {
		time.Sleep(20 * time.Millisecond)
	}
	return struck
}

func (w *world) signal(p *process, s syscall.Signal) bool { return p.cmd.Process.Signal(s) == nil }

// killAll kills a side as a machine's end does: its worker and guardians first, which could undo something.
func (w *world) killAll(p *process) bool {
	for range 3 { // of xl-stream, of its worker; and the worker
		killUnder(p.cmd.Process.Pid, "xenferry-guard")
	}
	return w.signal(p, syscall.SIGKILL)
}

// begin starts a hand-over of a new guest, its processes stepping on s unless that is nil.
func (w *world) begin(t *testing.T, s *stage, memory, victim string, how scenario) {
	t.Helper()
	w.said = nil
	kind := pick(w.r, "hvm", "pv64", "pvh", "pv32")
	w.a.create(t, "--name", "g", "--vcpus", "2", "--memory", memory, "--workload", "zipf:30000", "--kind", kind)
	patience := "1m"
	if victim == "half-open" {
		patience = "2s"
	}
	there := []string{"receive", "--host", w.b.spec, "--journal", w.jb, "--link-timeout", patience, "--once", "--listen", "tcp:127.0.0.1:0"}
	here := append([]string{"send", "--host", w.a.spec, "--journal", w.ja, "--link-timeout", patience}, how.options...)
	scheme := "tcp:"
	if how.tls {
		scheme = "tls:"
		there = append(append(there[:len(there)-1], "tls:127.0.0.1:0"), w.theirs...)
		here = append(here, w.mine...)
	}
	w.receiver = start(t, s.words(t, "target", there...)...)
	var via string
	w.relay, via = startRelay(t, strings.TrimPrefix(listening(t, w.receiver), scheme))
	w.sender = start(t, s.words(t, "source", append(here, "g", scheme+strings.TrimPrefix(via, "tcp:"))...)...)
}

// end waits for a hand-over's processes.
func (w *world) end(t *testing.T) {
	t.Helper()
	status := w.sender.wait()
	if w.b.domain(t, "g--incoming") == nil && w.b.domain(t, "g") == nil {
		_ = w.receiver.cmd.Process.Signal(os.Interrupt) // nobody may have come to it
	}
	w.say("sender", status, w.sender.stderr.String())
	w.say("receiver", w.receiver.wait(), w.receiver.stderr.String())
	_ = w.relay.cmd.Process.Kill()
	w.relay.wait()
}

func (w *world) say(who string, status int, errs string) {
	w.said = append(w.said, fmt.Sprintf("-- %s: %d\n%s", who, status, errs))
}

// recovery is the command line of recover on the source or the target, and what it asks the other by.
func (w *world) recovery(t *testing.T, s *stage, source bool) []string {
	t.Helper()
	here := []string{"--host", w.a.spec, "--journal", w.ja}
	there := []string{"--host", w.b.spec, "--journal", w.jb}
	if !source {
		here, there = there, here
	}
	peer := strings.Join(s.words(t, "asked", append([]string{"recover"}, there...)...), " ")
	return s.words(t, "recovering", append(append([]string{"recover"}, here...), "--peer", peer)...)
}

// recover recovers on both sides, in any order.
func (w *world) recover(t *testing.T) {
	t.Helper()
	first := w.r.IntN(2) == 0
	for _, source := range []bool{first, !first} {
		_, errs, status := try(t, w.recovery(t, nil, source)...)
		w.say(fmt.Sprintf("recover, source %v", source), status, errs)
		if status != 0 {
			t.Errorf("recover failed")
		}
	}
}

// judge looks for the guest, which must run on exactly one side, under its name, and prove itself; nothing may be left on the
// other, nor in the journals. It says where it runs, and removes it.
func (w *world) judge(t *testing.T) (where string) {
	t.Helper()
	var found []string
	for name, h := range map[string]*simHost{"source": w.a, "target": w.b} {
		all, err := h.Domains(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range all {
			where = name
			found = append(found, fmt.Sprintf("%s: %+v", name, d))
			if d.Name != "g" || d.Shutdown || d.Paused || d.LogDirty {
				t.Errorf("domain %s does not run as it should", d.Name)
			} else if err := h.check(t, "g"); err != nil {
				t.Error(err)
			}
			_ = h.Destroy(t.Context(), d.ID)
		}
	}
	if len(found) != 1 {
		t.Errorf("the guest is %d times there", len(found))
	}
	for _, journals := range []string{w.ja, w.jb} {
		left, err := migrate.List(journals)
		for _, e := range left {
			if e.Side == migrate.SourceSide || e.Step != migrate.Running && e.Step != migrate.Refused && e.Step != migrate.Forgotten {
				t.Errorf("a journal is left: %+v", e)
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.Fatalf("%s\n%s", strings.Join(found, "\n"), strings.Join(w.said, ""))
	}
	return where
}

// crash is a cell of the matrix: what happens, and when.
type crash struct{ scenario, step, victim string }

// scenario is a way in which a domain is handed over.
type scenario struct {
	options []string // of the sender
	tls     bool
}

var scenarios = map[string]scenario{"held": {}, "plain": {options: []string{"--plain"}}, "over TLS": {tls: true}}

// cells makes the matrix: each scenario goes once undisturbed, and whoever can be struck at a step that it came to is a cell.
func cells(t *testing.T, w *world) (all []crash) {
	for name, how := range scenarios {
		s := newStage(t, func(step string, _ int) {
			for victim := range victims {
				there := true
				switch victim {
				case "xc-save":
					there = findUnder(w.sender.cmd.Process.Pid, victim) > 0
				case "xc-restore":
					there = findUnder(w.receiver.cmd.Process.Pid, victim) > 0
				case "source's TLS", "target's TLS":
					there = how.tls
				}
				if there {
					all = append(all, crash{name, step, victim})
				}
			}
		})
		w.begin(t, s, "8M", "", how)
		w.end(t)
		if where := w.judge(t); where != "target" {
			t.Fatalf("undisturbed, the guest is at the %s\n%s", where, strings.Join(w.said, ""))
		}
	}
	return all
}

// tally counts what came of the crashes.
type tally struct {
	mu   sync.Mutex
	seen map[string]map[string]int
	runs int
}

func (y *tally) add(victim, outcome string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.seen == nil {
		y.seen = map[string]map[string]int{}
	}
	if y.seen[victim] == nil {
		y.seen[victim] = map[string]int{}
	}
	y.seen[victim][outcome]++
	y.runs++
}

func (y *tally) print(t *testing.T, what string) {
	t.Logf("%s: %d crashes; after recover, in each, the guest ran on exactly one side and proved itself: 0 lost, 0 double", what, y.runs)
	for _, victim := range slices.Sorted(maps.Keys(y.seen)) {
		t.Logf("  %-16s %v", victim, y.seen[victim])
	}
}

// lanes is how many worlds have crashes at a time.
const lanes = 3

// spread has run called with all numbers below n, on some worlds of their own.
func spread(t *testing.T, n int, run func(t *testing.T, w *world, i int)) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	t.Run("lanes", func(t *testing.T) {
		for lane := range lanes {
			t.Run(fmt.Sprint(lane), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, rand.New(rand.NewPCG(seed, uint64(lane))))
				for i := lane; i < n && !t.Failed(); i += lanes {
					run(t, w, i)
				}
			})
		}
	})
}

// TestXLCrashSteps strikes hand-overs at each of their steps: each with one victim, or all that can be with XENFERRY_FULL.
func TestXLCrashSteps(t *testing.T) {
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	all := cells(t, newWorld(t, r))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	steps := map[string]bool{}
	todo := slices.DeleteFunc(slices.Clone(all), func(c crash) bool {
		first := !steps[c.scenario+c.step]
		steps[c.scenario+c.step] = true
		return !first && !full()
	})
	todo = todo[:min(len(todo), count(len(todo), 20, len(todo)))]
	t.Logf("the matrix: %d steps of %d scenarios, %d victims, %d cells; %d of them now", len(steps), len(scenarios), len(victims), len(all), len(todo))
	var y tally
	spread(t, len(todo), func(t *testing.T, w *world, i int) {
		c := todo[i]
		struck := w.strike(t, c)
		w.recover(t)
		where := w.judge(t)
		if struck {
			y.add(c.victim, where)
		}
	})
	y.print(t, "at steps")
}

// strike begins a hand-over, strikes it, and says whether it could.
func (w *world) strike(t *testing.T, c crash) (struck bool) {
	t.Helper()
	s := newStage(t, func(step string, _ int) {
		if step == c.step {
			struck = victims[c.victim](w) || struck
		}
	})
	w.begin(t, s, "8M", c.victim, scenarios[c.scenario])
	w.end(t)
	w.say(fmt.Sprintf("%+v, struck %v", c, struck), 0, "")
	return struck
}

// undecided are crashes that leave something to both sides' recover.
var undecided = []crash{
	{"held", "source: got domain received and held, ready to unpause, 1", "source side"},
	{"held", "source: recorded given, 1", "sender"},
	{"held", "target: recorded owned, 1", "target side"},
	{"held", "target: recorded running, 1", "both"},
	{"plain", "source: recorded given, 1", "both"},
}

// TestXLCrashRecover kills recover, on either side, or whom it asks, at each of their steps, and recovers again.
func TestXLCrashRecover(t *testing.T) {
	type cell struct {
		before crash
		source bool // where recover is killed
		step   string
	}
	var all []cell
	w := newWorld(t, rand.New(rand.NewPCG(1, 1)))
	for _, before := range undecided {
		for _, source := range []bool{true, false} {
			w.strike(t, before)
			s := newStage(t, func(step string, _ int) { all = append(all, cell{before, source, step}) })
			_, errs, status := try(t, w.recovery(t, s, source)...)
			w.say("recover", status, errs)
			w.recover(t)
			w.judge(t)
		}
	}
	all = all[:min(len(all), count(len(all), 10, len(all)))]
	t.Logf("%d steps of recover after %d crashes", len(all), len(undecided))
	var y tally
	spread(t, len(all), func(t *testing.T, w *world, i int) {
		c := all[i]
		w.strike(t, c.before)
		struck := false
		s := newStage(t, func(step string, pid int) {
			if step == c.step {
				struck = syscall.Kill(pid, syscall.SIGKILL) == nil
			}
		})
		_, errs, status := try(t, w.recovery(t, s, c.source)...)
		w.say(fmt.Sprintf("recover, killed at %s: %v", c.step, struck), status, errs)
		w.recover(t)
		if where := w.judge(t); struck {
			y.add("recover", where)
		}
	})
	y.print(t, "of recover")
}

// TestXLCrashMoments strikes hand-overs at random moments.
func TestXLCrashMoments(t *testing.T) {
	names := slices.Sorted(maps.Keys(victims))
	var y tally
	var spans sync.Map // within what a world's moments are: it follows how long a hand-over takes there
	spread(t, count(40, 6, 500), func(t *testing.T, w *world, _ int) {
		span := time.Second
		if s, known := spans.Load(w); known {
			span = s.(time.Duration)
		}
		for struck := false; !struck; { // whom the moment missed is tried again
			victim := pick(w.r, names...)
			how := pick(w.r, slices.Sorted(maps.Keys(scenarios))...)
			w.begin(t, nil, "24M", victim, scenarios[how])
			late := max(w.r.Float64(), w.r.Float64(), w.r.Float64()) // where more happens
			select {
			case <-time.After(time.Duration(late * float64(span))):
				span = span * 21 / 20
			case <-w.sender.done:
				span = span * 3 / 4
			}
			struck = victims[victim](w)
			w.end(t)
			w.say(fmt.Sprintf("%s, %s, struck %v", victim, how, struck), 0, "")
			w.recover(t)
			if where := w.judge(t); struck {
				y.add(victim, where)
			}
		}
		spans.Store(w, span)
	})
	y.print(t, "at random moments")
}
