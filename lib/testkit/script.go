package testkit

import (
	"os"
	"os/signal"

	"github.com/rogpeppe/go-internal/testscript"
)

// Unhex is the testscript command "unhex hexfile file": it turns annotated hex into the octets it stands for.
func Unhex(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: unhex hexfile file")
	}
	octets, err := ParseHex(ts.ReadFile(args[0]))
	if err != nil {
		ts.Fatalf("unhex %s: %v", args[0], err)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), octets, 0o666))
}

// Interruptible has what a test starts heed an interrupt. Of a test that runs in the background it inherits else that this is
// ignored.
func Interruptible() {
	if signal.Ignored(os.Interrupt) {
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	}
}
