package cmd_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"xenferry/lib/testkit"
)

// TestScripts runs testdata/*.txtar: what a user types, and what he reads. Each script has two simulated hosts, $A and $B.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Abs("../scripts")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", os.Getenv("PATH"))
			env.Setenv("SCRIPTS", scripts)
			env.Setenv("XENFERRY_JOURNAL", filepath.Join(env.WorkDir, ".journal"))
			for _, name := range []string{"A", "B"} {
				spec, err := serve(env)
				if err != nil {
					return err
				}
				env.Setenv(name, spec)
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"unhex":  testkit.Unhex,
			"status": status,
		},
	})
}

// serve starts a simulated host for a script.
func serve(env *testscript.Env) (spec string, err error) {
	dir, err := os.MkdirTemp("", "sim")
	if err != nil {
		return "", err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	c := exec.Command("xc-sim", "serve", "--socket", dir+"/s", "--memory", "256M", "--ready-fd", "3")
	c.ExtraFiles = []*os.File{w}
	err = c.Start()
	_ = w.Close()
	if err != nil {
		return "", err
	}
	env.Defer(func() {
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait()
		_ = os.RemoveAll(dir)
	})
	if b, err := io.ReadAll(r); err != nil || len(b) == 0 {
		return "", fmt.Errorf("the simulated host did not start: %w", err)
	}
	return "sim:" + dir + "/s", r.Close()
}

// status runs a shell command and holds its exit status against a number: status N COMMAND. Its output is then what stdout
// and stderr match.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command")
	}
	err := ts.Exec("bash", "-o", "pipefail", "-c", strings.Join(args[1:], " ")+"\nstatus=$?\necho exit status $status\nexit 0")
	ts.Check(err)
	if out := ts.ReadFile("stdout"); !strings.HasSuffix(out, "exit status "+args[0]+"\n") {
		ts.Fatalf("%s: %s, want %s", strings.Join(args[1:], " "), out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:], args[0])
	}
}
