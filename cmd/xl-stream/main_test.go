package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"xenferry/lib/guard"
	"xenferry/lib/testkit"
)

func TestMain(m *testing.M) {
	if guard.IsGuardian(os.Args) { // of a command that a test calls
		main()
	}
	testscript.Main(m, map[string]func(){"xl-stream": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"unhex": testkit.Unhex},
	})
}
