package cmd_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"xenferry/lib/guest"
)

// busy is the guest of the tests that kill: small, so that there are many moments in its migration, and never at rest.
var busy = []string{"--name", "g", "--vcpus", "2", "--memory", "24M", "--workload", "zipf:30000"}

// moment is a random time within and a little beyond what a migration of busy takes. What must hold afterwards holds for
// all of them.
func moment(r *rand.Rand) time.Duration { return time.Duration(r.IntN(350_000)) * time.Microsecond }

// TestKill kills the saver, the restorer or a filter between them at random moments of a live migration, with a way back
// and without. Whatever the moment: at most one side runs, one can be made to run, and nothing half-built is left.
func TestKill(t *testing.T) {
	for _, victim := range []string{"xc-save", "xc-restore", "filter"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			a, b := newHost(t, "--memory", "128M"), newHost(t, "--memory", "128M")
			seen := map[string]int{}
			for i := range count(50, 10, 50) {
				kind := pick(r, "pv64", "pv32", "hvm", "pvh")
				a.create(t, append(busy, "--kind", kind)...)
				outcome := killOnce(t, a, b, victim, moment(r), r.IntN(2) == 0)
				seen[outcome]++
				if t.Failed() {
					t.Fatalf("run %d, kind %s: %s", i, kind, outcome)
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
		})
	}
}

// killOnce migrates once, kills once, and says how it ended.
func killOnce(t *testing.T, a, b *simHost, victim string, when time.Duration, ack bool) string {
	t.Helper()
	r1, w1 := pipe(t)
	r2, w2 := pipe(t)
	back, forth := pipe(t)
	save, restore := []string{"xc-save", "--host", a.spec, "--live"}, []string{"xc-restore", "--host", b.spec}
	var saveFiles, restoreFiles []*os.File
	if ack {
		save, saveFiles = append(save, "--ack", "3"), []*os.File{back}
		restore, restoreFiles = append(restore, "--ack", "3"), []*os.File{forth}
	}
	processes := map[string]*process{
		"xc-save":    startWith(t, nil, w1, saveFiles, append(save, "g")...),
		"filter":     startWith(t, r1, w2, nil, "cat"),
		"xc-restore": startWith(t, r2, nil, restoreFiles, restore...),
	}
	closeAll(r1, w1, r2, w2, back, forth)
	time.Sleep(when)
	_ = processes[victim].cmd.Process.Kill()
	said := ""
	status := map[string]int{}
	for name, p := range processes {
		status[name] = p.wait() // the guardian holds stderr open, so it has ended too
		said += fmt.Sprintf("-- %s: %d\n%s", name, status[name], p.stderr.String())
	}
	outcome := judge(t, a, b, said)
	if status["xc-restore"] == 0 && !strings.HasPrefix(outcome, "moved") {
		t.Errorf("xc-restore says that it has the domain, but it is %s\n%s", outcome, said)
	}
	if status["xc-save"] == 0 && outcome == "stayed" {
		t.Errorf("xc-save says that it is done, but the source runs\n%s", said)
	}
	return outcome
}

// judge looks where the guest is and has it prove itself there: "stayed" if the source runs on, "moved" if the target
// runs, "resumed" if neither did and the source could be made to.
func judge(t *testing.T, a, b *simHost, said string) string {
	t.Helper()
	source, target := a.domain(t, "g"), b.domain(t, "g")
	if source != nil && source.LogDirty {
		t.Errorf("the source's log is on\n%s", said)
	}
	running := source != nil && !source.Shutdown && !source.Paused
	switch {
	case target != nil && (target.Paused || target.Shutdown):
		t.Errorf("something half-built is left on the target: %+v\n%s", target, said)
		return "half-built"
	case target != nil && running:
		t.Errorf("the guest runs twice\n%s", said)
		return "twice"
	case target != nil:
		if err := b.check(t, "g"); err != nil {
			t.Errorf("on the target: %v\n%s", err, said)
		}
		return "moved"
	case source == nil:
		t.Errorf("the guest is nowhere\n%s", said)
		return "nowhere"
	}
	outcome := "stayed"
	if !running {
		outcome = "resumed"
		run(t, "xc-save", "--host", a.spec, "--resume", "g")
	}
	if err := a.check(t, "g"); err != nil {
		t.Errorf("on the source: %v\n%s", err, said)
	}
	if source.Kind == guest.HVM && (a.devices(t, source.ID).Log || !a.emulates(t, source.ID)) {
		t.Errorf("on the source the emulator logs, or stands still\n%s", said)
	}
	return outcome
}

// TestKillMigrate kills a process of scripts/migrate, guardians included: then the guest runs on exactly one side, the other
// has nothing, and the exit status tells which. The rest end the move also without the script itself.
func TestKillMigrate(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	a, b := newHost(t, "--memory", "128M"), newHost(t, "--memory", "128M")
	t.Setenv("TMPDIR", t.TempDir()) // a killed script leaves its files
	const itself = "the script itself"
	seen := map[string]int{}
	for range count(60, 12, 200) {
		victim := pick(r, "xc-save", "xc-restore", "xenferry-guard", "cat", itself)
		a.create(t, append(busy, "--kind", pick(r, "pv64", "pvh"))...)
		p := start(t, "setsid", "../scripts/migrate", "--from", a.spec, "--to", b.spec, "--via", "cat", "g", "--", "--live")
		time.Sleep(moment(r))
		var hit bool
		if victim == itself {
			hit = p.cmd.Process.Kill() == nil
		} else {
			hit = killUnder(p.cmd.Process.Pid, victim)
		}
		status := p.wait()
		outcome := judge(t, a, b, fmt.Sprintf("%s killed (%v); migrate: %d\n%s", victim, hit, status, p.stderr.String()))
		seen[outcome]++
		killed := victim == itself && status < 0
		if want := map[string]int{"moved": 0, "stayed": 1}[outcome]; outcome == "resumed" || status != want && !killed {
			t.Errorf("the guest %s, and migrate's exit status is %d\n%s", outcome, status, p.stderr.String())
		}
		if outcome == "moved" && a.domain(t, "g") != nil {
			t.Errorf("the source keeps a copy of a guest that moved\n%s", p.stderr.String())
		}
		if t.Failed() {
			return
		}
		for _, h := range []*simHost{a, b} {
			if d := h.domain(t, "g"); d != nil {
				_ = h.Destroy(t.Context(), d.ID)
			}
		}
	}
	t.Logf("outcomes: %v", seen)
}

// killUnder kills the first process of that name that descends from pid, and says whether there was one.
func killUnder(pid int, name string) bool {
	id := findUnder(pid, name)
	return id > 0 && syscall.Kill(id, syscall.SIGKILL) == nil
}

// findUnder is a process of that name that descends from pid, 0 if there is none.
func findUnder(pid int, name string) int {
	parents, names := map[int]int{}, map[int]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		line := string(b)
		open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
		id, _ := strconv.Atoi(strings.TrimSpace(line[:open]))
		names[id] = line[open+1 : end]
		parents[id], _ = strconv.Atoi(strings.Fields(line[end+1:])[1])
	}
	for id, n := range names {
		for up := id; n == name && up > 1; up = parents[up] {
			if up == pid {
				return id
			}
		}
	}
	return 0
}
