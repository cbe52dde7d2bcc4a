package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"xenferry/lib/testkit"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"verify-v2": main, referenceName: main})
}

func TestScripts(t *testing.T) {
	testkit.Interruptible()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Cmds:                map[string]func(ts *testscript.TestScript, neg bool, args []string){"unhex": testkit.Unhex},
	})
}
