package cmd_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"xenferry/lib/direct"
	"xenferry/lib/helper"
)

// checkpointEnd is libxl's record behind each checkpoint.
var checkpointEnd = []byte{4, 0, 0, 0, 0, 0, 0, 0}

// TestRemus sends checkpoints of a running guest to a receiver, kills the sender in the middle of one, and has the
// receiver's guest prove that it is the last complete one.
func TestRemus(t *testing.T) {
	for _, kind := range []string{"pv64", "pv32", "pvh"} {
		t.Run(kind, func(t *testing.T) { remus(t, kind, count(20, 5, 20)) })
	}
}

func remus(t *testing.T, kind string, epochs int) {
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	witness := filepath.Join(t.TempDir(), "witness")
	id := a.create(t, "--name", "g", "--kind", kind, "--memory", "8M", "--workload", "zipf:5000", "--witness", witness)
	spec := direct.SpecOf(*a.domain(t, "g"))
	copied, err := b.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	info, err := b.Info(t.Context(), copied)
	if err != nil {
		t.Fatal(err)
	}
	streamR, streamW := pipe(t)

	// The receiver: libxl reads its own record at each checkpoint, and fails over at the end of the stream.
	to := &libxl{h: b, domain: copied, n: helper.Numbering414, answer: map[helper.Kind]func() int32{
		helper.Checkpoint: func() int32 {
			if _, err := io.ReadFull(streamR, make([]byte, len(checkpointEnd))); err != nil {
				return 2
			}
			return 1
		},
	}}
	status := make(chan int, 1)
	go func() {
		status <- to.serve(t, "xc-restore", streamR, fmt.Sprintf("--restore-domain 3 -1 %d %d 0 %d 0 800 1", copied, info.StoreEvtchn, info.ConsoleEvtchn))
	}()

	// The sender, killed when it has written one checkpoint more than libxl has ended.
	done := 0
	from := &libxl{h: a, domain: id, n: helper.Numbering414}
	from.answer = map[helper.Kind]func() int32{
		helper.Postcopy: func() int32 {
			if done == epochs {
				_ = from.cmd.Process.Kill()
				return 0
			}
			if err := os.Rename(witness, witness+".last"); err != nil {
				t.Error(err)
			}
			if err := a.Resume(t.Context(), id); err != nil {
				t.Error(err)
			}
			return 1
		},
		helper.Checkpoint: func() int32 {
			if _, err := streamW.Write(checkpointEnd); err != nil {
				t.Error(err)
			}
			done++
			return 1
		},
	}
	from.serve(t, "xc-save", streamW, fmt.Sprintf("--save-domain 3 0 %d 1 184 1", id))
	closeAll(streamW)
	if s := <-status; s != 0 || to.result[0] != 0 {
		t.Fatalf("the receiver did not fail over: status %d, %v\n%q", s, to.result, to.logs)
	}
	closeAll(streamR)
	if done != epochs {
		t.Fatalf("%d checkpoints of %d", done, epochs)
	}
	if err := b.check(t, "--witness", witness+".last", "g"); err != nil {
		t.Errorf("the guest is not what it was at the last checkpoint: %v", err)
	}
	if err := b.Unpause(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	if err := b.check(t, "g"); err != nil {
		t.Error(err)
	}
	if d := a.domain(t, "g"); d.LogDirty {
		t.Errorf("the source is %+v", d)
	}
}
