package cmd_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// gate is a place where what the scripts run waits until a test opens it, or is over. Who comes leaves a file there.
type gate struct{ dir, bin string }

// newGate makes a gate with commands in front of the PATH: their names, and what the shell does before it is them. There $gate
// is the gate's folder, and pass WORD says WORD and waits.
func newGate(t *testing.T, commands map[string]string) *gate {
	t.Helper()
	g := &gate{t.TempDir(), t.TempDir()}
	for name, text := range commands {
		program, err := exec.LookPath(name)
		if err == nil {
			text += "\nexec " + program + ` "$@"`
		}
		text = "#!/bin/bash\ngate=" + g.dir + "\npass() { : >$gate/$1.$$; until [ -e $gate/open ]; do [ -d $gate -a -d /proc/$PPID ] || exit 1; sleep 0.02; done; }\n" + text + "\n"
		if err := os.WriteFile(filepath.Join(g.bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", g.bin+":"+os.Getenv("PATH"))
	return g
}

// came is how many have said a word.
func (g *gate) came(word string) int {
	files, _ := filepath.Glob(filepath.Join(g.dir, word+".*"))
	return len(files)
}

func (g *gate) await(t *testing.T, word string, n int) {
	t.Helper()
	until(t, fmt.Sprint(n, " at ", word), func() bool { return g.came(word) >= n })
}

func (g *gate) open(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, "open"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// empty waits until nothing that was started behind the gate is left.
func (g *gate) empty(t *testing.T) {
	t.Helper()
	until(t, "all end", func() bool {
		files, _ := filepath.Glob("/proc/[0-9]*/environ")
		return !slices.ContainsFunc(files, func(file string) bool {
			b, err := os.ReadFile(file)
			return err == nil && bytes.Contains(b, []byte(g.bin))
		})
	})
}

// interruption is a signal to a script alone, or to all of its process group, as a terminal sends it.
type interruption struct {
	signal syscall.Signal
	group  bool
}

func (i interruption) String() string {
	return fmt.Sprintf("%v, group %v", i.signal, i.group)
}

func (i interruption) send(p *process) {
	pid := p.cmd.Process.Pid
	if i.group {
		pid = -pid
	}
	_ = syscall.Kill(pid, i.signal)
}

// repeat interrupts a script, as its user may, until it is over.
func (i interruption) repeat(p *process) {
	for end := time.Now().Add(patience); !p.over() && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		i.send(p)
	}
}

var (
	justTERM  = interruption{syscall.SIGTERM, false}
	groupTERM = interruption{syscall.SIGTERM, true}
	groupINT  = interruption{syscall.SIGINT, true}
	groupHUP  = interruption{syscall.SIGHUP, true}
	justKILL  = interruption{syscall.SIGKILL, false}
)

// TestInterruptedEvacuation interrupts xc-evacuate while two moves are under way, which wait for their target, and a third is not.
func TestInterruptedEvacuation(t *testing.T) {
	const nobodyReads = "nobody reads what it says"
	const again = "no other move begins, and 2 under way are finished"
	for _, row := range []struct {
		name   string
		on     func(t *testing.T, g *gate, p *process)
		signal syscall.Signal // that the script dies of
		status int            // if not
		report string         // TARGET for the target
		moved  int            // how many are on the target in the end
	}{
		{"SIGTERM", func(t *testing.T, g *gate, p *process) {
			justTERM.send(p)
			until(t, "it says what it does", func() bool { return strings.Contains(p.stderr.String(), "SIGTERM: "+again) })
			g.open(t)
		}, syscall.SIGTERM, 0, "e1\tTARGET\ne2\tTARGET\ne3\tnot begun\n", 2},
		{"^C", func(t *testing.T, g *gate, p *process) {
			groupINT.send(p)
			until(t, "it says what it does", func() bool { return strings.Contains(p.stderr.String(), "SIGINT: "+again) })
			g.open(t)
		}, syscall.SIGINT, 0, "e1\tTARGET\ne2\tTARGET\ne3\tnot begun\n", 2},
		{"the terminal is gone", func(t *testing.T, g *gate, p *process) {
			groupHUP.send(p)
			g.open(t)
		}, syscall.SIGHUP, 0, "e1\tTARGET\ne2\tTARGET\ne3\tnot begun\n", 2},
		{"all of the group are told to stop", func(t *testing.T, g *gate, p *process) {
			groupTERM.send(p)
			g.open(t)
		}, syscall.SIGTERM, 0, "e1\tTARGET\ne2\tTARGET\ne3\tnot begun\n", 2},
		{nobodyReads, func(t *testing.T, g *gate, p *process) {
			justTERM.send(p)
			g.open(t)
		}, syscall.SIGTERM, 0, "e1\tTARGET\ne2\tTARGET\ne3\tnot begun\n", 2},
		{"SIGTERM again", func(t *testing.T, g *gate, p *process) {
			justTERM.repeat(p)
		}, syscall.SIGTERM, 0, "e1\tfailed\ne2\tfailed\ne3\tnot begun\n", 0},
		{"^C again", func(t *testing.T, g *gate, p *process) {
			groupINT.repeat(p)
		}, syscall.SIGINT, 0, "e1\tfailed\ne2\tfailed\ne3\tnot begun\n", 0},
		{"a move is killed", func(t *testing.T, g *gate, p *process) {
			victim := findUnder(p.cmd.Process.Pid, "xc-migrate")
			if victim == 0 {
				t.Fatal("nobody is there to be killed")
			}
			_ = syscall.Kill(victim, syscall.SIGKILL)
			until(t, "the script knows", func() bool { return syscall.Kill(victim, 0) != nil })
			g.open(t)
		}, 0, 1, "", 2},
		{"the script is killed", func(t *testing.T, g *gate, p *process) {
			justKILL.send(p)
			p.wait()
			g.open(t)
		}, syscall.SIGKILL, 0, "", 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, b := newHost(t, "--memory", "96M"), newHost(t, "--memory", "96M")
			for i, memory := range []string{"12M", "10M", "8M"} {
				a.create(t, "--name", fmt.Sprint("e", i+1), "--kind", "pvh", "--memory", memory)
			}
			t.Setenv("TMPDIR", t.TempDir()) // a killed script leaves its files
			g := newGate(t, map[string]string{"xl-stream": `case $1 in send) : >$gate/sender.$$ ;; receive) pass receiver ;; esac`})
			var out locked
			words := []string{"setsid", "../scripts/xc-evacuate", "--from", a.spec, "--jobs", "2", b.spec}
			if row.name == nobodyReads {
				words = append([]string{"bash", "-c", `exec "$@" 2> >(exec true)`, "bash"}, words...)
			}
			p := startWith(t, nil, &out, nil, words...)
			g.await(t, "receiver", 2)
			row.on(t, g, p)
			status := p.wait()
			said := p.stderr.String()
			state := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
			if row.signal != 0 && (!state.Signaled() || state.Signal() != row.signal) || row.signal == 0 && status != row.status {
				t.Errorf("%v\n%s", p.cmd.ProcessState, said)
			}
			report := strings.ReplaceAll(out.String(), b.spec, "TARGET")
			if row.report != "" && report != row.report {
				t.Errorf("printed %q, want %q\n%s", report, row.report, said)
			}
			if row.name == "a move is killed" && report != "e1\tTARGET\ne2\tnot known\ne3\tnot begun\n" && report != "e1\tnot known\ne2\tTARGET\ne3\tnot begun\n" {
				t.Errorf("printed %q", report)
			}
			g.empty(t) // a move whose script is gone goes on alone
			for i := range 3 {
				name, h := fmt.Sprint("e", i+1), b
				if i >= row.moved {
					h = a
				}
				if err := h.check(t, name); err != nil {
					t.Errorf("%v\n%s", err, said)
				}
			}
			if n := g.came("sender"); n != 2 || len(b.all(t)) != row.moved {
				t.Errorf("%d moves have begun, and on the target is %v\n%s", n, b.all(t), said)
			}
		})
	}
}

// all are the names of a host's domains.
func (h *simHost) all(t *testing.T) (names []string) {
	t.Helper()
	all, err := h.Domains(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		names = append(names, d.Name)
	}
	return names
}

// TestInterruptedMove interrupts xc-migrate: its exit status and its last line tell where the guest is.
func TestInterruptedMove(t *testing.T) {
	stepping, err := steppingXLStream()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("XENFERRY_JOURNAL", t.TempDir())
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	for _, by := range []interruption{justTERM, groupTERM, groupINT, groupHUP} {
		for _, row := range []struct {
			step   string
			status int // 2 if it may be 0 or 1
		}{
			{"run xc-save", 2},
			{"got domain received and held", 2},
			{"send domain is yours", 0},
			{"got my copy unpause results are as follows", 0},
		} {
			t.Run(fmt.Sprint(by, ": ", row.step), func(t *testing.T) {
				id := a.create(t, "--name", "g", "--kind", "pvh", "--memory", "8M", "--workload", "uniform:2000")
				var p *process
				var once sync.Once
				begun := make(chan struct{})
				s := newStage(t, func(step string, _ int) {
					<-begun
					if strings.HasPrefix(step, "source: "+row.step) {
						once.Do(func() { by.send(p) })
					}
				})
				p = start(t, "env", "PATH="+filepath.Dir(stepping)+":"+os.Getenv("PATH"), "XENFERRY_STEPS="+s.socket, "XENFERRY_ROLE=source",
					"setsid", "../scripts/xc-migrate", "--from", a.spec, "g", b.spec)
				close(begun)
				status, said := p.wait(), p.stderr.String()
				if status != row.status && row.status != 2 || status != 0 && status != 1 {
					t.Errorf("exit status %d, want %d\n%s", status, row.status, said)
				}
				here, there := a, b
				if status == 0 {
					here, there = b, a
				} else if want := fmt.Sprintf("xc-migrate: not known to be on the target; here: domain %d running\n", id); !strings.Contains(said, want) {
					t.Errorf("said %s, want %s", said, want)
				}
				if err := here.check(t, "g"); err != nil {
					t.Errorf("exit status %d: %v\n%s", status, err, said)
				}
				until(t, "the other side is empty\n"+said, func() bool { return len(there.all(t)) == 0 })
				run(t, "xc-sim", "destroy", "--host", here.spec, "g")
			})
		}
	}

	t.Run("the target does not answer", func(t *testing.T) {
		for _, by := range []interruption{justTERM, groupINT} {
			a.create(t, "--name", "g", "--kind", "pvh", "--memory", "8M", "--workload", "uniform:2000")
			g := newGate(t, map[string]string{"xl-stream": `[ "$1" != receive ] || pass receiver`})
			p := start(t, "setsid", "../scripts/xc-migrate", "--from", a.spec, "g", b.spec)
			g.await(t, "receiver", 1)
			by.send(p)
			if status, left := p.wait(), b.all(t); status != 1 || len(left) > 0 {
				t.Errorf("%v: exit status %d, there %v\n%s", by, status, left, p.stderr.String())
			}
			if err := a.check(t, "g"); err != nil {
				t.Error(err)
			}
			run(t, "xc-sim", "destroy", "--host", a.spec, "g")
		}
	})

	// A sender that is killed when the guest has changed hands has nobody who could ask at once.
	t.Run("the sender is killed", func(t *testing.T) {
		id := a.create(t, "--name", "g", "--kind", "pvh", "--memory", "8M", "--workload", "uniform:2000")
		s := newStage(t, func(step string, pid int) {
			if strings.HasPrefix(step, "source: got my copy unpause results are as follows") {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		})
		_, said, status := try(t, "env", "PATH="+filepath.Dir(stepping)+":"+os.Getenv("PATH"), "XENFERRY_STEPS="+s.socket, "XENFERRY_ROLE=source",
			"../scripts/xc-migrate", "--from", a.spec, "g", b.spec)
		if status != 3 || !strings.Contains(said, fmt.Sprintf("xc-migrate: domain %d suspended here: if the target may have it, 'xl-stream recover' asks\n", id)) {
			t.Errorf("exit status %d\n%s", status, said)
		}
		run(t, "xl-stream", "recover", "--host", a.spec, "--peer", "xl-stream recover --host "+b.spec)
		moved(t, a, b, said)
	})
}

// TestInterruptedMigrate interrupts scripts/migrate where the image is on its way, where the target is ready, and where it runs
// the guest and has not been heard.
func TestInterruptedMigrate(t *testing.T) {
	for _, row := range []struct {
		at     string
		by     []interruption
		again  bool // until it is over; nobody ever passes the gate
		status int
	}{
		{"image", []interruption{justTERM, groupINT, groupTERM, groupHUP}, false, 1},
		{"READY", []interruption{justTERM, groupINT, groupTERM, groupHUP}, false, 1},
		{"RUNNING", []interruption{justTERM, groupINT, groupTERM, groupHUP}, false, 0},
		{"image", []interruption{justTERM, groupINT}, true, 1},
		{"READY", []interruption{justTERM, groupINT}, true, 1},
		{"RUNNING", []interruption{justTERM}, true, 0},
	} {
		for _, by := range row.by {
			t.Run(fmt.Sprintf("%s, %v, again %v", row.at, by, row.again), func(t *testing.T) {
				a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
				a.create(t, "--name", "g", "--kind", "pvh", "--memory", "8M")
				g := newGate(t, map[string]string{
					"filter": `[ $at != image ] || pass image; exec cat`,
					"there": `[ "$1" = xc-restore ] || exec "$@"
						"$@" | while IFS= read -r word; do [ $at != ${word%% *} ] || pass $at; echo "$word"; done`,
				})
				p := start(t, "env", "at="+row.at, "setsid", "../scripts/migrate", "--from", a.spec, "--to", b.spec, "--on", "there", "--via", "filter", "g", "--", "--live")
				g.await(t, row.at, 1)
				if row.again {
					by.repeat(p)
				} else {
					by.send(p)
					g.open(t)
				}
				status, said := p.wait(), p.stderr.String()
				if status != row.status {
					t.Errorf("exit status %d, want %d\n%s", status, row.status, said)
				}
				if outcome := judge(t, a, b, said); outcome != map[int]string{0: "moved", 1: "stayed"}[status] || status == 0 && len(a.all(t)) > 0 {
					t.Errorf("exit status %d, and the guest %s\n%s", status, outcome, said)
				}
			})
		}
	}
}
