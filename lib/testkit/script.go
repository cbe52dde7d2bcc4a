package testkit

import (
	"os"

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
